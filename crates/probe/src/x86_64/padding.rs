//! Bytes between functions, which nothing runs.

use iced_x86::{Decoder, DecoderOptions, Mnemonic};
use leaktap_arch::BREAKPOINT;

/// `int3`, and what a linker fills gaps with.
const FILLERS: [u8; 2] = [BREAKPOINT, 0];

/// Whether the first `count` of `bytes`, which come behind the end of a function, are part of
/// nothing but fillers and instructions that do nothing.
pub(super) fn is_padding(bytes: &[u8], count: usize) -> bool {
    let mut decoder = Decoder::new(64, bytes, DecoderOptions::NONE);
    while decoder.position() < count {
        let at = decoder.position();
        let is_filler = bytes.get(at).is_some_and(|byte| FILLERS.contains(byte));
        // A filler is one byte, whatever else it may begin.
        let is_unused = match is_filler {
            true => decoder.set_position(at + 1).is_ok(),
            false => decoder.can_decode() && decoder.decode().mnemonic() == Mnemonic::Nop,
        };
        if !is_unused {
            return false;
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_compilers_and_linkers_fill_gaps_with_is_padding() {
        // data16 cs nop word ptr [rax + rax], as GNU as pads glibc; cs nop word ptr [rax + rax],
        // musl.
        let glibc = [0x66, 0x66, 0x2e, 0x0f, 0x1f, 0x84, 0, 0, 0, 0, 0];
        for padding in [
            &glibc[..],
            &glibc[1..],
            &[0xcc; 4],
            &[0x90; 4],
            &[0; 4],
            &[0x90, 0xcc, 0, 0x90],
        ] {
            assert!(is_padding(padding, 4), "{padding:x?}");
        }
    }

    #[test]
    fn code_is_none() {
        // push rbp; a nop that is cut off; xchg eax, ebx; ret
        for code in [
            &[0x90, 0x55, 0x90, 0x90][..],
            &glibc_cut(),
            &[0x93; 4],
            &[0xc3; 4],
            &[0x90; 3],
        ] {
            assert!(!is_padding(code, 4), "{code:x?}");
        }
    }

    fn glibc_cut() -> [u8; 5] {
        [0x66, 0x66, 0x2e, 0x0f, 0x1f]
    }
}
