//! What a call that has returned did, as the recorder is told.

use leaktap_api::{Effect, FunctionId, effect};
use leaktap_ledger::Key;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::Memory;
use leaktap_unwind::Start;

use crate::calls::Call;
use crate::modules::Modules;
use crate::process::Undo;
use crate::record::Recorder;
use crate::stack::Walker;

/// Bytes of a page: mmap(2) and its kin work in whole ones.
const PAGE: u64 = 4096;

/// Tells the recorder what a call that has returned did.
pub(crate) struct Outcome<'a> {
    pub(crate) memory: &'a Memory,
    pub(crate) modules: &'a mut Modules,
    pub(crate) walker: &'a mut Walker,
    pub(crate) recorder: &'a mut dyn Recorder,
    /// The block that the last call inside this one has returned; then the one that this one has.
    pub(crate) handed: Option<Key>,
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
            Effect::Mapped {
                at,
                len,
                protection,
            } => {
                self.mapped(call.function, Addr::new(at), len, start);
                self.protected(Addr::new(at), len, protection);
            }
            Effect::GivenBack { at, len, lazily } => {
                if let Some(len) = in_pages(len) {
                    self.recorder.given_back(Addr::new(at), len, lazily);
                }
            }
            Effect::Unmapped { at, len } => self.unmapped(Addr::new(at), len),
            Effect::Moved { from, to } => {
                self.unmapped(Addr::new(from.0), from.1);
                self.mapped(call.function, Addr::new(to.0), to.1, start);
            }
            Effect::Break { old, new } => self.moved_break(call.function, old, new, start),
            Effect::Freed | Effect::Nothing => {}
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

    fn mapped(&mut self, function: FunctionId, at: Addr, len: u64, start: Start) {
        let Some(len) = in_pages(len).filter(|len| *len > 0) else {
            return;
        };
        if self.is_allocators(start) {
            self.recorder.unmapped(at, len);
        } else {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            self.recorder.mapped(function, at, len, stack);
        }
    }

    /// Whether what is mapped for the code at `start` is for the C library, or for an allocator: it
    /// and its caller are code that an allocator runs. What the program calls for itself, too, is
    /// called by others.
    fn is_allocators(&mut self, start: Start) -> bool {
        let is_its = |modules: &mut Modules, ret: Addr| {
            modules.serves_allocator(ret.wrapping_offset(-1)) // the call, not what follows
        };
        if self.modules.is_system(start.ip) {
            return true;
        }
        if !is_its(self.modules, start.ip) {
            return false;
        }
        let mut callers = self
            .walker
            .callers(self.memory, self.modules.rules(), start);
        callers
            .second()
            .is_some_and(|ret| is_its(self.modules, ret))
    }

    fn unmapped(&mut self, at: Addr, len: u64) {
        if let Some(len) = in_pages(len) {
            self.recorder.unmapped(at, len);
        }
    }

    fn protected(&mut self, at: Addr, len: u64, protection: u64) {
        if let Some(len) = in_pages(len) {
            self.recorder.protected(at, len, is_usable(protection));
        }
    }

    /// The end of the heap segment went from `old` to `new`, to the byte.
    fn moved_break(&mut self, function: FunctionId, old: u64, new: u64, start: Start) {
        if new < old {
            self.recorder.unmapped(Addr::new(new), old - new);
        } else if new > old && !self.is_allocators(start) {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            let at = Addr::new(old);
            self.recorder.mapped(function, at, new - old, stack);
        }
    }
}

/// `len` bytes as the kernel takes them: whole pages.
pub(crate) fn in_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}

/// Whether a `PROT_*` of mmap(2), mprotect(2) allows anything.
pub(crate) fn is_usable(protection: u64) -> bool {
    const PROT_READ_WRITE_EXEC: u64 = 7;
    protection & PROT_READ_WRITE_EXEC != 0
}
