//! Which function a call instruction calls, by name.

use super::ElfFile;
use leaktap_memory::Svma;

/// `endbr64`, with which entries of a PLT may begin, and the `bnd` prefix of their jumps.
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];
const BND: u8 = 0xf2;

/// Bytes of a PLT's entry that are looked at.
const ENTRY_LEN: usize = 11;

impl ElfFile {
    /// The symbol of the function that the call right before `ret` calls: one of another module,
    /// through the PLT or a GOT slot, or one of this file. Nothing of a call through a register or
    /// other memory.
    pub fn called_before(&self, ret: Svma) -> Option<String> {
        const LEN: usize = 6;
        let bytes = self.bytes_at(Svma(ret.0.checked_sub(LEN as u64)?), LEN)?;
        match *bytes {
            // call [rip + displacement]
            [0xff, 0x15, ref to @ ..] => self.named_slot(ret.0, to),
            // call displacement
            [_, 0xe8, ref to @ ..] => self.function_of(relative(ret.0, to)?),
            _ => None,
        }
    }

    /// The function at `at`, or the one that a PLT's entry there jumps to. Nothing where it could
    /// be one or the other.
    fn function_of(&self, at: u64) -> Option<String> {
        self.jumps_through_slot(at).or_else(|| {
            let symbol = self.symbol_at(Svma(at))?;
            let is_it = symbol.svma.0 == at && !self.is_merged(Svma(at));
            is_it.then_some(symbol.name)
        })
    }

    fn jumps_through_slot(&self, at: u64) -> Option<String> {
        let entry = self.bytes_at(Svma(at), ENTRY_LEN)?;
        let jump = entry.strip_prefix(&ENDBR64).unwrap_or(&entry);
        let jump = jump.strip_prefix(&[BND]).unwrap_or(jump);
        // jmp [rip + displacement]
        let to = jump.strip_prefix(&[0xff, 0x25])?.get(..4)?;
        let end = at + (entry.len() - jump.len()) as u64 + 6;
        self.named_slot(end, to)
    }

    /// The name for which the word is that lies so far from `from`.
    fn named_slot(&self, from: u64, to: &[u8]) -> Option<String> {
        self.referred_to_at(Svma(relative(from, to)?))
    }
}

fn relative(from: u64, displacement: &[u8]) -> Option<u64> {
    let displacement = i32::from_le_bytes(displacement.try_into().ok()?);
    from.checked_add_signed(displacement.into())
}
