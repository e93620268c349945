use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use leaktap_memory::Addr;

use crate::{Built, Found, ModuleRows, Remembered, RuleCache, Rules};

/// Makes the rows of a module when a pc in it is first asked for.
pub type Load = Box<dyn FnOnce() -> Arc<Built> + Send>;

/// How many pcs the rule cache holds: 96 KiB, which a second-level cache takes easily.
const CACHED: usize = 4096;

/// The rows of all modules of a process, loaded as they are needed.
///
/// One lookup in the common case is one probe of a direct-mapped cache.
pub struct Table {
    /// Sorted by range; no overlaps.
    modules: Vec<Module>,
    cache: Box<[Remembered]>,
    /// Changes with the modules.
    generation: u32,
}

struct Module {
    range: Range<Addr>,
    base: Addr,
    /// Makes `rows`.
    load: Option<Load>,
    rows: Option<Arc<Built>>,
}

impl Table {
    /// A table without modules.
    pub fn new() -> Table {
        Table {
            modules: Vec::new(),
            cache: vec![Remembered::EMPTY; CACHED].into_boxed_slice(),
            generation: 0,
        }
    }

    /// Adds the module mapped at `range`, whose rows count from `base` (the address of the file's
    /// lowest loadable segment in the process), in the place of any that overlaps it.
    pub fn insert(&mut self, range: Range<Addr>, base: Addr, load: Load) {
        self.remove(range.clone());
        if range.is_empty() {
            return;
        }
        let at = self
            .modules
            .partition_point(|module| module.range.start < range.start);
        let module = Module {
            range,
            base,
            load: Some(load),
            rows: None,
        };
        self.modules.insert(at, module);
    }

    /// Drops every module that overlaps `range`.
    pub fn remove(&mut self, range: Range<Addr>) {
        let outside =
            |module: &Module| module.range.end <= range.start || range.end <= module.range.start;
        self.modules.retain(outside);
        self.generation = self.generation.wrapping_add(1);
    }

    /// Entries of call frame information that could not be read, of all modules loaded so far.
    pub fn skipped(&self) -> usize {
        let loaded = self.modules.iter().filter_map(|m| m.rows.as_ref());
        loaded.map(|built| built.skipped).sum()
    }

    /// Where each module is, what its rows count from, and its rows, which are made now if need be.
    pub fn modules(&mut self) -> impl Iterator<Item = (Range<Addr>, Addr, &Arc<Built>)> + '_ {
        let modules = self.modules.iter_mut();
        modules.map(|module| (module.range.clone(), module.base, module.rows()))
    }

    #[cold]
    fn search(&mut self, lookup: Addr) -> Found {
        let after = self
            .modules
            .partition_point(|module| module.range.start <= lookup);
        let module = after
            .checked_sub(1)
            .and_then(|last| self.modules.get_mut(last));
        match module {
            Some(module) if lookup < module.range.end => module.find(lookup),
            _ => Found::NoCfi,
        }
    }
}

impl Module {
    fn find(&mut self, lookup: Addr) -> Found {
        let base = self.base;
        let rows = &self.rows().rows;
        ModuleRows { base, rows }.find(lookup)
    }

    fn rows(&mut self) -> &Arc<Built> {
        self.rows.get_or_insert_with(|| {
            let load = self.load.take();
            load.map(|load| load()).unwrap_or_default()
        })
    }
}

impl Rules for Table {
    #[inline]
    fn rule(&mut self, lookup: Addr) -> Found {
        let generation = self.generation;
        if let Some(found) = RuleCache::over(&mut self.cache, generation).find(lookup) {
            return found;
        }
        let found = self.search(lookup);
        RuleCache::over(&mut self.cache, generation).keep(lookup, found);
        found
    }
}

impl Default for Table {
    fn default() -> Table {
        Table::new()
    }
}

impl fmt::Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ranges = self.modules.iter().map(|module| &module.range);
        f.debug_list().entries(ranges).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Row, Rule, Step};

    fn range(start: u64, end: u64) -> Range<Addr> {
        Addr::new(start)..Addr::new(end)
    }

    fn ending_at(start: u32) -> Load {
        let rows = vec![Row::new(start, Rule::pack(Step::End))];
        Box::new(move || Arc::new(Built { rows, skipped: 1 }))
    }

    const END: Found = Found::Rule(Rule::pack(Step::End));

    #[test]
    fn finds_rules_inside_modules_only_and_loads_them_when_asked() {
        let mut table = Table::new();
        table.insert(range(0x5000, 0x6000), Addr::new(0x5000), ending_at(0x10));
        table.insert(range(0x1000, 0x2000), Addr::new(0x1000), ending_at(0));
        table.insert(range(0x9000, 0xa000), Addr::new(0x8000), ending_at(0x1800));
        assert_eq!(table.skipped(), 0);
        for (lookup, expected) in [
            (0xfff, Found::NoCfi),
            (0x1000, END),
            (0x1fff, END),
            (0x2000, Found::NoCfi),
            (0x500f, Found::NoCfi),
            (0x5010, END),
            (0x6000, Found::NoCfi),
            (0x97ff, Found::NoCfi),
            (0x9800, END),
        ] {
            assert_eq!(table.rule(Addr::new(lookup)), expected, "{lookup:#x}");
            assert_eq!(table.rule(Addr::new(lookup)), expected, "{lookup:#x} again");
        }
        assert_eq!(table.skipped(), 3);
    }

    #[test]
    fn what_was_cached_is_forgotten_with_its_module() {
        let mut table = Table::new();
        let at = Addr::new(0x1800);
        table.insert(range(0x1000, 0x2000), Addr::new(0x1000), ending_at(0));
        assert_eq!(table.rule(at), END);
        table.remove(range(0x1fff, 0x3000));
        assert_eq!(table.rule(at), Found::NoCfi);
        table.insert(range(0x1000, 0x3000), Addr::new(0x1000), ending_at(0));
        assert_eq!(table.rule(at), END);
        table.insert(range(0x1000, 0x2000), Addr::new(0x1000), ending_at(0x900));
        assert_eq!(table.rule(at), Found::NoCfi);
        assert_eq!(table.rule(Addr::new(0x2800)), Found::NoCfi);
    }
}
