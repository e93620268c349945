//! The end of a program's linking, awaited without an int3: should the tracer be killed, nothing
//! traps.
//!
//! The dynamic linker's `r_brk` is one `ret`, with padding behind it. There lies, until the program
//! has been linked, code that makes a system call without any effect and returns. The program's one
//! thread is taken from system call to system call, until one stands behind that one. The kernel
//! forgets that when the tracer dies.

use leaktap_arch::{ENDBR64, RET};
use leaktap_image::Image;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory, Registers};

use crate::arch::{Awaiting, room_of_return};
use crate::detour::is_one_write;
use crate::returns;

/// That code in a program.
#[derive(Debug)]
pub(crate) struct Linking {
    /// Of the `ret`.
    at: Addr,
    original: [u8; Awaiting::CODE.len()],
}

impl Linking {
    /// Where the code has room in the program of `image`. It is not there yet.
    pub(crate) fn find(image: &Image, memory: &Memory) -> Option<Linking> {
        let brk = image.linker_brk(memory)?;
        let code = returns::code(image, memory, brk, Awaiting::CODE.len()).ok()?;
        let (at, original) = room_of_return(&code, brk, Awaiting::CODE.len()).ok()?;
        let original = *original.first_chunk()?;
        is_one_write(at, Awaiting::CODE.len()).then_some(Linking { at, original })
    }

    /// What a tracer that was killed has left of it. Whoever stood by has put back the `ret`.
    pub(crate) fn left(image: &Image, memory: &Memory) -> Option<Linking> {
        let brk = image.linker_brk(memory)?;
        let module = image.module_at(brk)?;
        let is_left = |at: &Addr| {
            let mut now = Awaiting::CODE;
            memory.read(*at, &mut now).is_ok() && Awaiting::is_left(&now)
        };
        let places = [0, ENDBR64.len() as i64];
        let mut places = places.into_iter().map(|n| brk.wrapping_offset(n));
        let at = places.find(is_left)?;
        let original = module
            .file()
            .bytes_at(module.svma(at), Awaiting::CODE.len())?;
        let original = *original.first_chunk()?;
        (original[0] == RET).then_some(Linking { at, original })
    }

    /// Where whoever stands by puts back a byte, and which over which other one: no thread that is
    /// inside comes to harm then.
    pub(crate) fn first_byte(&self) -> (Addr, u8, u8) {
        (self.at, RET, Awaiting::CODE[0])
    }

    /// Puts the code in its place. No thread is there.
    pub(crate) fn begin(&self, memory: &Memory, _: &AllStopped<'_>) -> bool {
        memory.write(self.at, &Awaiting::CODE).is_ok()
    }

    /// Puts back what was there, in the program or in a copy of it. No thread is
    /// [inside](Linking::leave).
    pub(crate) fn restore(&self, memory: &Memory, _: &AllStopped<'_>) {
        let _ = memory.write(self.at, &self.original); // the memory has gone
    }

    /// The same where threads may be inside.
    pub(crate) fn take_out(&self, memory: &Memory, stopped: &AllStopped<'_>) {
        for thread in stopped.threads() {
            if let Ok(mut registers) = thread.registers()
                && self.leave(&mut registers)
            {
                let _ = thread.set_registers(&registers); // killed meanwhile
            }
        }
        self.restore(memory, stopped);
    }

    /// Whether a thread is at the end of that system call, or in it.
    pub(crate) fn is_at_call(&self, registers: &Registers) -> bool {
        Awaiting::is_at_call(self.at, registers)
    }

    /// Moves a thread that is inside to the start, where the `ret` belongs; false if it is not.
    pub(crate) fn leave(&self, registers: &mut Registers) -> bool {
        Awaiting::leave(self.at, registers)
    }
}
