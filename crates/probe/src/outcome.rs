//! What a call that has returned did, by its arguments and its result.

use leaktap_api::{Action, FunctionId, is_lazy};
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
}

impl Outcome<'_> {
    /// `call` has returned `result`; `start` is where its caller goes on.
    pub(crate) fn of(&mut self, call: &Call<Undo>, result: u64, start: Start) {
        let [first, second, third, ..] = call.arguments;
        // An int: the upper half of the register means nothing.
        let is_success = result as u32 == 0;
        match call.action.shape() {
            Action::ALLOCATE => self.allocated(call, result, start),
            Action::ALLOCATE_INTO => {
                if is_success && let Ok(block) = self.memory.read_u64(Addr::new(first)) {
                    self.allocated(call, block, start);
                }
            }
            Action::REALLOCATE => self.reallocated(call, result, start),
            Action::RESIZE => self.resized(call, result, start),
            Action::MAP => {
                if let Some(at) = mapped_at(result) {
                    self.mapped(call.function, at, second, start);
                    self.protected(at, second, third);
                }
            }
            Action::GIVE_BACK if is_success => {
                if let Some(len) = in_pages(second) {
                    let is_lazy = is_lazy(third);
                    self.recorder.given_back(Addr::new(first), len, is_lazy);
                }
            }
            Action::UNMAP if is_success => self.unmapped(Addr::new(first), second),
            Action::REMAP => {
                if let Some(at) = mapped_at(result) {
                    self.unmapped(Addr::new(first), second);
                    self.mapped(call.function, at, third, start);
                }
            }
            Action::SET_BREAK if is_success && second != 0 => {
                self.moved_break(call.function, second, first, start);
            }
            Action::MOVE_BREAK => {
                if let Some(old) = mapped_at(result) {
                    let old = old.get();
                    self.moved_break(call.function, old, old.wrapping_add(first), start);
                }
            }
            _ => {}
        }
    }
}

impl Outcome<'_> {
    fn allocated(&mut self, call: &Call<Undo>, block: u64, start: Start) {
        let Some(bytes) = call.action.size(&call.arguments) else {
            return;
        };
        if block != 0 {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            let at = Addr::new(block);
            self.recorder.allocated(call.allocator(), at, bytes, stack);
        }
    }

    /// Null with a size of 0 means that the old block was freed (glibc); null otherwise that it is
    /// still there (realloc(3)).
    fn reallocated(&mut self, call: &Call<Undo>, block: u64, start: Start) {
        if block != 0 {
            self.allocated(call, block, start);
        } else if call.action.size(&call.arguments) != Some(0) && !call.action.frees_on_failure() {
            self.unfreed(call);
        }
    }

    /// The block is where it was, and has become as large as was asked for, or not.
    fn resized(&mut self, call: &Call<Undo>, size: u64, start: Start) {
        let asked = call.action.size(&call.arguments);
        match (asked, call.action.block(&call.arguments)) {
            (Some(asked), Some(block)) if size >= asked => self.allocated(call, block, start),
            _ => self.unfreed(call),
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
        if self.modules.is_system(start.ip) {
            self.recorder.unmapped(at, len);
        } else {
            let stack = self.walker.walk(self.memory, self.modules.rules(), start);
            self.recorder.mapped(function, at, len, stack);
        }
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
        } else if new > old && !self.modules.is_system(start.ip) {
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

/// The address that mmap(2) returned, unless it failed: errors are the last page of addresses,
/// `MAP_FAILED` among them.
fn mapped_at(result: u64) -> Option<Addr> {
    (result < PAGE.wrapping_neg()).then_some(Addr::new(result))
}
