//! Slots that a leaktap which was killed has left in the unused tails of code segments.
//!
//! No journal tells of them: whoever stands by may not touch them while a thread may be inside. The
//! next tracer finds them by what they are. The bytes are others than the file's, and just those
//! that move one instruction of the process there: an instruction which is in its place, so that
//! nobody else can have moved it in order to put something there.

use leaktap_arch::LONGEST;
use leaktap_image::{Image, Module};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory};

use crate::arch::{OutOfLine, jumps_to, out_of_line};
use crate::slots::{Place, SLOT_LEN, place, unused};

/// A slot that nobody uses any more, unless a thread is still inside.
#[derive(Debug)]
pub(crate) struct Left {
    at: Addr,
    /// As of the file.
    original: Vec<u8>,
    /// The instruction that was moved there.
    site: Addr,
    moved: OutOfLine,
}

/// Those in the modules of `image`.
pub(crate) fn left(image: &Image, memory: &Memory) -> Vec<Left> {
    let modules = image.modules().iter().filter(|module| !module.is_vdso());
    modules
        .flat_map(|module| in_module(module, image, memory))
        .collect()
}

fn in_module(module: &Module, image: &Image, memory: &Memory) -> Vec<Left> {
    let mut found = Vec::new();
    for range in unused(module) {
        let len = range.end.offset_from(range.start).unwrap_or(0) as usize;
        let mut now = vec![0; len];
        let of_file = module.file().tail_at(module.svma(range.start), len);
        let Some(of_file) = of_file.filter(|_| memory.read(range.start, &mut now).is_ok()) else {
            continue;
        };
        let slots = now.chunks(SLOT_LEN).zip(of_file.chunks(SLOT_LEN));
        for (index, (now, of_file)) in (0_i64..).zip(slots) {
            let at = range.start.wrapping_offset(index * SLOT_LEN as i64);
            if now != of_file
                && let Some((site, moved)) = instruction(at, now, image, memory)
            {
                let original = of_file.get(..moved.code.len()).unwrap_or_default().to_vec();
                let left = Left {
                    at,
                    original,
                    site,
                    moved,
                };
                found.push(left);
            }
        }
    }
    found
}

/// The instruction that a slot at `at` with the bytes `now` moves there, and how.
fn instruction(at: Addr, now: &[u8], image: &Image, memory: &Memory) -> Option<(Addr, OutOfLine)> {
    // The jump back is somewhere behind the moved instruction.
    let backs = (1..now.len()).filter_map(|offset| jumps_to(at, now, offset));
    let sites =
        backs.flat_map(|back| (1..=LONGEST as i64).map(move |len| back.wrapping_offset(-len)));
    sites.into_iter().find_map(|site| {
        image.module_at(site)?;
        let mut bytes = [0; LONGEST];
        let len = memory.read_partial(site, &mut bytes);
        let moved = out_of_line(bytes.get(..len)?, site, at, SLOT_LEN).ok()?;
        (moved.jump < moved.code.len() && now.starts_with(&moved.code)).then_some((site, moved))
    })
}

impl Left {
    /// Puts back what was there. Threads that are inside go on where the instruction is.
    pub(crate) fn restore(&self, memory: &Memory, stopped: &AllStopped<'_>) {
        for thread in stopped.threads() {
            let Ok(mut registers) = thread.registers() else {
                continue; // killed
            };
            if let Some(Place { ip, pop }) = place(&self.moved, self.at, self.site, registers.ip())
            {
                registers.set_ip(ip);
                registers.set_sp(registers.sp().wrapping_offset(pop));
                let _ = thread.set_registers(&registers); // killed meanwhile
            }
        }
        // A failure means that the memory has just gone, with the whole process.
        let _ = memory.write(self.at, &self.original);
    }
}
