//! What the kernel lays on the stack for a signal handler: `struct rt_sigframe` of its
//! asm/sigframe.h. It holds all registers, and rt_sigreturn(2) puts them back.

use super::Registers;

/// Offsets of the registers in a `struct ucontext` (asm/ucontext.h: 40 bytes, then r8 to r15, rdi,
/// rsi, rbp, rbx, rdx, rax, rcx, rsp, rip).
pub const IP_AT: i16 = 168;
/// Of rsp.
pub const SP_AT: i32 = 160;
/// Of rbp.
pub const BP_AT: i32 = 120;

/// Words of a `struct ucontext`, up to the end of the signal mask.
pub const CONTEXT: usize = 38;

/// `UC_FP_XSTATE`, `UC_SIGCONTEXT_SS` and `UC_STRICT_RESTORE_SS` of asm/ucontext.h.
const FLAGS: u64 = 0b111;
/// No mode of sigaltstack(2): rt_sigreturn(2) leaves the alternate stack as it is then.
const NO_MODE: u64 = 0x7fff;

/// Of the word behind the flags: cs and ss, as 64-bit code has them.
const SEGMENTS: u64 = 0x002b_0000_0000_0033;

/// `FP_XSTATE_MAGIC1` and `FP_XSTATE_MAGIC2` of asm/sigcontext.h: between them is what XSAVE has
/// written, extended features included.
const MAGIC1: u32 = 0x4650_5853;
const MAGIC2: u32 = 0x4650_5845;

/// `struct _fpx_sw_bytes` of asm/sigcontext.h. A debugger finds there, in the place of the first
/// word, which features there are (`USER_XSTATE_XCR0_WORD`).
const SW_BYTES: usize = 464;
const SW_LEN: usize = 48;
/// `XSTATE_BV` of the XSAVE header: the features that are not in their initial state.
const IN_USE: usize = 512;
/// The shortest area with such a header.
const SHORTEST: usize = 576;

/// Features by bit: x87 and SSE, protection keys, the tiles of AMX, and the first that is unknown.
const FP_SSE: u64 = 0b11;
const PKRU: u64 = 1 << 9;
const TILES: u64 = 1 << 18;
const UNKNOWN: u64 = !0 << 20;
/// The tiles come last. A thread has room for them once it has asked for that (arch_prctl(2)).
const TILES_LEN: usize = 8192;

/// XRSTOR wants what XSAVE has written at a multiple of so many bytes.
pub const EXTENDED_ALIGNMENT: u64 = 64;

/// What comes behind that.
pub const EXTENDED_END: [u8; 4] = MAGIC2.to_le_bytes();

/// A frame's `struct ucontext`: its head, `sigaltstack`, `struct sigcontext`, the signal mask. What
/// XSAVE has written is at `extended_at`.
pub fn context(registers: &Registers, mask: u64, extended_at: u64) -> [u64; CONTEXT] {
    let r = registers;
    let segments = (r.cs & 0xffff) | (r.ss & 0xffff) << 48;
    let mut words = [0; CONTEXT];
    let set = [
        FLAGS,
        0,
        0,
        NO_MODE,
        0,
        r.r8,
        r.r9,
        r.r10,
        r.r11,
        r.r12,
        r.r13,
        r.r14,
        r.r15,
        r.rdi,
        r.rsi,
        r.rbp,
        r.rbx,
        r.rdx,
        r.rax,
        r.rcx,
        r.rsp,
        r.rip,
        r.eflags,
        segments,
        0,
        0,
        0,
        0,
        extended_at,
    ];
    for (word, value) in words.iter_mut().zip(set) {
        *word = value;
    }
    let [.., last] = &mut words;
    *last = mask;
    words
}

/// Whether `word` may be what the kernel saves two words behind an instruction pointer: cs and ss.
pub const fn are_segments(word: u64) -> bool {
    word & !0xffff_0000 == SEGMENTS
}

/// Makes of what XSAVE has written what a signal frame has there, before [`EXTENDED_END`]. Returns
/// how many bytes of it stay; nothing where there are features that are not known.
pub fn frame_extended(area: &mut [u8]) -> Option<usize> {
    let (there, in_use) = (word(area, SW_BYTES)?, word(area, IN_USE)?);
    if (there | in_use) & UNKNOWN != 0 {
        return None;
    }
    let len = match there & !in_use & TILES {
        0 => area.len(),
        _ => area.len().checked_sub(TILES_LEN)?,
    };
    if len < SHORTEST {
        return None;
    }
    // The kernel keeps protection keys elsewhere, and writes them here in any case.
    let in_use = in_use | there & PKRU;
    put(area, IN_USE, &in_use.to_le_bytes())?;
    put(area, SW_BYTES, &[0; SW_LEN])?;
    let size = u32::try_from(len).ok()?;
    put(area, SW_BYTES, &MAGIC1.to_le_bytes())?;
    put(area, SW_BYTES + 4, &size.checked_add(4)?.to_le_bytes())?;
    put(area, SW_BYTES + 8, &(in_use | FP_SSE).to_le_bytes())?;
    put(area, SW_BYTES + 16, &size.to_le_bytes())?;
    Some(len)
}

fn word(area: &[u8], at: usize) -> Option<u64> {
    let bytes = area.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*bytes))
}

fn put(area: &mut [u8], at: usize, bytes: &[u8]) -> Option<()> {
    let place = area.get_mut(at..)?.get_mut(..bytes.len())?;
    place.copy_from_slice(bytes);
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn area(len: usize, there: u64, in_use: u64) -> Vec<u8> {
        let mut area = vec![0; len];
        area[SW_BYTES..SW_BYTES + 8].copy_from_slice(&there.to_le_bytes());
        area[IN_USE..IN_USE + 8].copy_from_slice(&in_use.to_le_bytes());
        area
    }

    #[test]
    fn tiles_are_left_out_where_a_thread_has_none() {
        let len_of = |len, there, in_use| frame_extended(&mut area(len, there, in_use)).unwrap();
        assert_eq!(len_of(832, 0b111, 0b111), 832);
        assert_eq!(len_of(11008, TILES | 0b111, 0b111), 2816);
        assert_eq!(len_of(11008, TILES | 0b111, TILES), 11008);
    }

    #[test]
    fn what_is_unknown_or_too_short_is_refused() {
        assert!(frame_extended(&mut area(832, 1 << 20, 0)).is_none());
        assert!(frame_extended(&mut area(520, 0b11, 0b11)).is_none());
        assert!(frame_extended(&mut []).is_none());
    }

    #[test]
    fn protection_keys_are_always_restored() {
        let mut area = area(2696, PKRU | 0b111, 0b1);
        frame_extended(&mut area).unwrap();
        assert_eq!(word(&area, SW_BYTES + 8), Some(PKRU | FP_SSE));
    }

    #[test]
    fn registers_are_where_an_unwinder_looks_for_them() {
        let mut registers = Registers::default();
        (registers.rip, registers.rsp, registers.rbp) = (1, 2, 3);
        let words = context(&registers, 4, 5);
        let at = |offset: usize| words[offset / 8];
        assert_eq!(at(IP_AT as usize), 1);
        assert_eq!([at(SP_AT as usize), at(BP_AT as usize)], [2, 3]);
        assert_eq!(words[CONTEXT - 1], 4);
    }
}
