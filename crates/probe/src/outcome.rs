//! What a call that has returned did, as the recorder is told.

use leaktap_api::{Effect, effect};
use leaktap_ledger::Key;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::Memory;
use leaktap_unwind::Start;

use crate::calls::Call;
use crate::mapping::Mapping;
use crate::modules::Modules;
use crate::process::Undo;
use crate::record::Recorder;
use crate::stack::Walker;

/// Tells the recorder what a call that has returned did.
pub(crate) struct Outcome<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) modules: &'a mut Modules,
    pub(crate) walker: &'a mut Walker,
    pub(crate) recorder: &'a mut dyn Recorder,
    /// The block that the last call inside this one has returned; then the one that this one has.
    pub(crate) handed: Option<Key>,
    /// When the call has returned: see [`Mapped::moment`](crate::Mapped::moment).
    pub(crate) moment: u64,
}

impl Outcome<'_> {
    /// `call` has returned `result`; `start` is where its caller goes on.
    pub(crate) fn of(&mut self, call: &Call<Undo>, result: u64, start: Start) {
        match effect(call.action, &call.arguments, result) {
            Effect::Allocated { at, size } => self.allocated(call, at, size, start),
            Effect::Stored { place, size } => {
                if let Ok(at) = self.memory.read_u64(Addr::new(place)) {
                    self.allocated(call, at, size, start);
                }
            }
            Effect::Kept => self.unfreed(call),
            Effect::Freed | Effect::Nothing => {}
            of_mapping => self.mapped(call, of_mapping, start),
        }
    }

    fn allocated(&mut self, call: &Call<Undo>, block: u64, bytes: u64, start: Start) {
        if block != 0 {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            let by = call.allocator();
            // A pool's first object lies where its chunk does: both count.
            let hands_on =
                |inner: &Key| inner.addr() == block && inner.family() != by.family && !call.is_told;
            match self.handed.filter(hands_on) {
                Some(inner) => self.recorder.handed_on(by, inner, stack),
                None => {
                    let at = Addr::new(block);
                    self.recorder.allocated(by, at, bytes, stack);
                    self.handed = Some(Key::new(by.family, block));
                }
            }
        }
    }

    fn unfreed(&mut self, call: &Call<Undo>) {
        if let Some(freed) = call.undo.freed {
            self.recorder.unfreed(freed);
        }
    }

    fn mapped(&mut self, call: &Call<Undo>, effect: Effect, start: Start) {
        let mut mapping = Mapping {
            is_system: effect.maps() && self.is_allocators(start),
            begun: call.begun,
            moment: self.moment,
            recorder: &mut *self.recorder,
        };
        mapping.did(effect, |recorder, what| {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            recorder.mapped(call.function, what, stack);
        });
    }

    /// See [`Modules::map_for_allocator`].
    fn is_allocators(&mut self, start: Start) -> bool {
        self.modules.map_for_allocator(start.ip, |modules| {
            let mut callers = self.walker.callers(self.memory, modules.rules(), start);
            callers.second()
        })
    }
}
