//! A program that is being linked: see [`crate::linking`].

use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Registers};

use super::Process;
use crate::linking::Linking;

impl Process {
    /// The program has just been executed, and has one thread. If it has yet to be linked, and that
    /// can be awaited without an int3, nothing is armed until it is.
    pub fn await_link(&mut self, stopped: &AllStopped<'_>) {
        if self.is_linked() {
            return;
        }
        let Some(linking) = Linking::find(self.modules.image(), &self.memory) else {
            return;
        };
        self.note_linking(&linking, true);
        match linking.begin(&self.memory, stopped) {
            true => self.linking = Some(linking),
            false => self.note_linking(&linking, false),
        }
    }

    /// Whether that is awaited: by stops at the system calls of the program's one thread.
    pub fn is_linking(&self) -> bool {
        self.linking.is_some()
    }

    /// Whether a thread in a system call, which has these registers, makes it since the program has
    /// been linked.
    pub fn is_linked_at(&self, registers: &Registers) -> bool {
        let linking = self.linking.as_ref();
        linking.is_some_and(|linking| linking.is_at_call(registers)) && self.is_linked()
    }

    /// Moves a thread that stands there to where the linker goes on.
    pub fn return_from_link(&self, registers: &mut Registers) {
        if let Some(linking) = &self.linking
            && linking.leave(registers)
            // It would lack a return.
            && !self.memory.process().has_shadow_stack()
            && let Ok(ret) = self.memory.read_u64(registers.sp())
        {
            registers.return_to(Addr::new(ret));
        }
    }

    /// It has been linked, or that is not awaited any longer: no thread is there.
    pub fn end_linking(&mut self, stopped: &AllStopped<'_>) {
        if let Some(linking) = self.linking.take() {
            linking.restore(&self.memory, stopped);
            self.note_linking(&linking, false);
        }
    }

    /// Tells whoever stands by of the byte that is about to come, or has gone.
    fn note_linking(&mut self, linking: &Linking, come: bool) {
        let (at, original, written) = linking.first_byte();
        let places = std::iter::once(at);
        self.breakpoints.note_own(places, original, written, come);
    }

    /// Whether a tracer that was killed has left what awaits that.
    pub fn has_linking_left(&self) -> bool {
        Linking::left(self.modules.image(), &self.memory).is_some()
    }

    /// Takes that out.
    pub fn take_linking_out(&mut self, stopped: &AllStopped<'_>) {
        if let Some(left) = Linking::left(self.modules.image(), &self.memory) {
            left.take_out(&self.memory, stopped);
        }
    }
}
