//! What a file wants from others, and what others get from it: as the dynamic linker sees it.

use leaktap_memory::Svma;
use object::elf;

use super::{ElfFile, Slot, Symbol, lossy, string_at, symbol, versions};

/// A word that is filled with the address of what a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The word.
    pub slot: Slot,
    /// The version that was asked for when the file was linked.
    pub version: Option<String>,
}

impl ElfFile {
    /// Words that the dynamic linker fills with the address of function `name`.
    pub fn references(&self, name: &str) -> Vec<Reference> {
        let table = self.exported();
        let slots = self.relocations().slots(name, table.strings());
        let reference = |(slot, version)| Reference {
            slot,
            version: table.version_name(version).cloned(),
        };
        slots.map(reference).collect()
    }

    /// For whose address the word at `slot` is.
    pub fn referred_to_at(&self, slot: Svma) -> Option<String> {
        let name = self.relocations().name_at(slot)?;
        string_at(self.exported().strings(), name as usize).map(lossy)
    }

    /// The function `name` that a reference from another file, with `version`, is bound to, if the
    /// search for it comes to this file.
    pub fn definition(&self, name: &str, version: Option<&str>) -> Option<Symbol> {
        let table = self.exported();
        let named = table.named(name).filter(|entry| {
            let is_local = entry.binding == elf::STB_LOCAL.0 || entry.invisible;
            !is_local && self.is_function(entry)
        });
        versions::matching(table, named, version).map(|entry| symbol(table, entry))
    }

    /// The names of the libraries that it depends on: DT_NEEDED, in that order.
    pub fn needed(&self) -> Vec<String> {
        let names = self.dynamic().map_or(&[][..], |dynamic| &dynamic.needed);
        let strings = self.exported().strings();
        let name = |at: &u64| string_at(strings, usize::try_from(*at).ok()?).map(lossy);
        names.iter().filter_map(name).collect()
    }

    /// True if names are looked for in the file itself first (DT_SYMBOLIC).
    pub fn is_symbolic(&self) -> bool {
        self.dynamic().is_some_and(|dynamic| dynamic.symbolic)
    }
}
