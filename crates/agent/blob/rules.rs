//! Rules from the rows that the tracer shares.

use core::slice;
use core::sync::atomic::Ordering::Acquire;

use leaktap_memory::Addr;
use leaktap_unwind::{Found, ModuleRows, Row, RuleCache, Rules};

use crate::agent::Agent;
use crate::layout::{Module, Modules};

/// The modules of the process.
#[derive(Clone, Copy)]
pub(crate) struct AllRows {
    modules: &'static [Module],
}

impl AllRows {
    /// As of now. To be had after the generation was read: so what is remembered under a
    /// generation never stems from older rows.
    #[inline]
    pub(crate) fn new(agent: Agent) -> AllRows {
        let table = agent.control.live.modules.load(Acquire) as *const Modules;
        // SAFETY: the tracer writes a whole table before it writes its address, and keeps it.
        let modules = unsafe {
            match table.as_ref() {
                Some(header) => slice::from_raw_parts(table.add(1).cast(), header.len as usize),
                None => &[],
            }
        };
        AllRows { modules }
    }

    fn module(&self, lookup: Addr) -> Option<&'static Module> {
        let (mut low, mut len) = (0_usize, self.modules.len());
        while len > 1 {
            let half = len / 2;
            let middle = low.wrapping_add(half);
            if self
                .modules
                .get(middle)
                .is_some_and(|m| m.range.start <= lookup.get())
            {
                low = middle;
            }
            len = len.wrapping_sub(half);
        }
        let module = self.modules.get(low)?;
        (module.range.start <= lookup.get() && lookup.get() < module.range.end).then_some(module)
    }
}

impl Rules for AllRows {
    #[cold]
    fn rule(&mut self, lookup: Addr) -> Found {
        let Some(module) = self.module(lookup) else {
            return Found::NoCfi;
        };
        // SAFETY: rows are written before the table that names them and stay as long; any bits
        // are a row.
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
