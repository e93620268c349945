//! Rules from the rows that the tracer shares.

use core::slice;

use leaktap_memory::Addr;
use leaktap_unwind::{Found, ModuleRows, Row, RuleCache, Rules};

use crate::agent::Agent;
use crate::layout::Module;

/// The rows of all modules of the process, as they are at each lookup. To be asked after the
/// generation was read: so what is remembered under a generation never stems from older rows.
#[derive(Clone, Copy)]
pub(crate) struct AllRows(pub(crate) Agent);

impl AllRows {
    fn module(self, lookup: Addr) -> Option<Module> {
        // SAFETY: the tracer publishes modules, in memory that it never unmaps while threads are in
        // the agent.
        let found = unsafe { self.0.control.live.modules.find(lookup.get()) };
        let module = Module::from_words(found?);
        module.range.contains(lookup.get()).then_some(module)
    }
}

impl Rules for AllRows {
    #[cold]
    fn rule(&mut self, lookup: Addr) -> Found {
        let Some(module) = self.module(lookup) else {
            return Found::NoCfi;
        };
        // SAFETY: rows are written before a table names them, and stay; any bits are a row.
        let rows = unsafe { slice::from_raw_parts(module.rows as *const Row, module.len as usize) };
        ModuleRows {
            base: Addr::new(module.base),
            rows,
        }
        .find(lookup)
    }
}

/// The same, with a cache that is the caller's alone.
pub(crate) struct CachedRows<'c> {
    pub(crate) all: AllRows,
    pub(crate) cache: RuleCache<'c>,
}

impl Rules for CachedRows<'_> {
    #[inline]
    fn rule(&mut self, lookup: Addr) -> Found {
        if let Some(found) = self.cache.find(lookup) {
            return found;
        }
        let found = self.all.rule(lookup);
        self.cache.keep(lookup, found);
        found
    }
}
