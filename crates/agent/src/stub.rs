use leaktap_memory::Addr;

use crate::Shape;
use crate::layout::Descriptor;

/// Bytes of a stub. The displaced instructions may follow it.
pub const STUB_LEN: usize = 40;

/// Offset of the descriptor in a stub.
const DESCRIPTOR: usize = 16;

/// The code that a probed function's jump leads to: it names the probe to the agent.
///
/// For a stub at `at`, with the agent's image at `image`, no more than 2 GiB away.
pub fn stub(at: Addr, image: Addr, shape: Shape, descriptor: &Descriptor) -> [u8; STUB_LEN] {
    let mut stub = [0xcc; STUB_LEN];
    // lea r11, [rip + descriptor]
    let to_descriptor = (DESCRIPTOR - 7) as u32;
    stub[..3].copy_from_slice(&[0x4c, 0x8d, 0x1d]);
    stub[3..7].copy_from_slice(&to_descriptor.to_le_bytes());
    // jmp entry
    let entry = image.get().wrapping_add(shape.entry());
    let distance = entry.wrapping_sub(at.get().wrapping_add(12)) as u32;
    stub[7] = 0xe9;
    stub[8..12].copy_from_slice(&distance.to_le_bytes());
    stub[DESCRIPTOR..].copy_from_slice(&descriptor.to_bytes());
    stub
}
