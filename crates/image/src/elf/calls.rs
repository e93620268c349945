//! Which function a call instruction calls, by name.

use leaktap_arch::{CALL_SITE_LEN, Callee, LINKAGE_LEN, called_before, linkage_word};
use leaktap_memory::Svma;

use super::ElfFile;

impl ElfFile {
    /// The symbol of the function that the call right before `ret` calls: one of another module,
    /// through the PLT or a GOT slot, or one of this file. Nothing of a call through a register or
    /// other memory.
    pub fn called_before(&self, ret: Svma) -> Option<String> {
        let start = ret.0.checked_sub(CALL_SITE_LEN as u64)?;
        let bytes = self.bytes_at(Svma(start), CALL_SITE_LEN)?;
        match called_before(*bytes.first_chunk()?, ret.0)? {
            Callee::ByWord(at) => self.referred_to_at(Svma(at)),
            Callee::At(at) => self.function_of(at),
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
        let entry = self.bytes_at(Svma(at), LINKAGE_LEN)?;
        self.referred_to_at(Svma(linkage_word(&entry, at)?))
    }
}
