use leaktap_arch::{BREAKPOINT, JUMP};
use leaktap_memory::Addr;

use crate::Shape;
use crate::layout::Descriptor;

/// Bytes of a stub. The displaced instructions may follow it.
pub const STUB_LEN: usize = 48;

/// Offset of the descriptor in a stub; behind it is its address.
pub const DESCRIPTOR_AT: usize = 16;
const ADDRESS: usize = DESCRIPTOR_AT + size_of::<Descriptor>();

/// Bytes of the first instruction of a [full](Shape::is_full) stub, which pushes a word.
pub const PUSH_LEN: usize = 6;

/// The code that a probed function's jump leads to: it names the probe to the agent, in r11 or on
/// the stack.
///
/// For a stub at `at`, with the agent's image at `image`, no more than 2 GiB away.
pub fn stub(at: Addr, image: Addr, shape: Shape, descriptor: &Descriptor) -> [u8; STUB_LEN] {
    let mut stub = [BREAKPOINT; STUB_LEN];
    let (opcode, operand): (&[u8], usize) = match shape.is_full() {
        true => (&[0xff, 0x35], ADDRESS), // push [rip + address]
        false => (&[0x4c, 0x8d, 0x1d], DESCRIPTOR_AT), // lea r11, [rip + descriptor]
    };
    let jump = opcode.len() + 4;
    let to_operand = (operand - jump) as u32;
    stub[..opcode.len()].copy_from_slice(opcode);
    stub[opcode.len()..jump].copy_from_slice(&to_operand.to_le_bytes());
    // jmp entry
    let entry = image.get().wrapping_add(shape.entry());
    let behind = at.get().wrapping_add(jump as u64 + 5);
    let distance = entry.wrapping_sub(behind) as u32;
    stub[jump] = JUMP;
    stub[jump + 1..jump + 5].copy_from_slice(&distance.to_le_bytes());
    stub[DESCRIPTOR_AT..ADDRESS].copy_from_slice(&descriptor.to_bytes());
    let address = at.get().wrapping_add(DESCRIPTOR_AT as u64);
    stub[ADDRESS..].copy_from_slice(&address.to_le_bytes());
    stub
}
