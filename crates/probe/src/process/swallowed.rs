//! Int3s that somebody else takes: a uprobe that is set where we have one, and after us, gets its
//! trap before any tracer.
//!
//! Nothing tells of that but what is missing: calls return that were never entered.

use std::collections::{BTreeSet, HashMap};

use leaktap_arch::{CALL_SITE_LEN, Callee, LINKAGE_LEN, called_before, linkage_word};
use leaktap_memory::{Addr, ReadMemory};

use super::Process;
use leaktap_api::FunctionId;

/// So many calls in a row return unseen before it is said.
const CERTAIN: u32 = 64;

/// What is known of that.
#[derive(Debug, Default)]
pub(super) struct Swallowed {
    /// How many calls of a function have returned since one was seen to be entered.
    unseen: HashMap<FunctionId, u32>,
    functions: BTreeSet<FunctionId>,
}

impl Swallowed {
    /// A call is seen.
    pub(super) fn entered(&mut self, function: FunctionId) {
        if !self.unseen.is_empty() {
            self.unseen.remove(&function);
        }
    }
}

impl Process {
    /// A call returns to `ret`, as calls of `function` have before; it was not seen when it was
    /// entered.
    pub(super) fn returned_unseen(&mut self, function: FunctionId, ret: Addr) {
        // Another function may have been called from there: by a pointer, or through one that calls
        // this one at times only.
        if self.calls(ret) == self.address_of(function) {
            let unseen = self.swallowed.unseen.entry(function).or_default();
            *unseen = unseen.saturating_add(1);
            if *unseen == CERTAIN {
                self.swallowed.functions.insert(function);
            }
        }
    }

    /// Functions whose calls were not all seen: another tool takes the int3s there.
    pub fn swallowed(&self) -> impl Iterator<Item = FunctionId> + '_ {
        self.swallowed.functions.iter().copied()
    }

    /// Whether the process has written over int3s of ours, and may put them back.
    pub fn has_overwritten_breakpoints(&self) -> bool {
        self.breakpoints.is_overwritten()
    }

    fn address_of(&self, function: FunctionId) -> Option<Addr> {
        let mut points = self.points.iter();
        let point = points.find(|point| point.function == function)?;
        Some(point.address)
    }

    /// What the call instruction before `ret` calls, always: directly, or by way of the procedure
    /// linkage table.
    fn calls(&self, ret: Addr) -> Option<Addr> {
        let mut code = [0; CALL_SITE_LEN];
        let start = ret.wrapping_offset(-(CALL_SITE_LEN as i64));
        self.memory.read(start, &mut code).ok()?;
        let word = |at: u64| self.memory.read_u64(Addr::new(at)).ok().map(Addr::new);
        let target = match called_before(code, ret.get())? {
            Callee::ByWord(at) => return word(at),
            Callee::At(target) => target,
        };
        let mut entry = [0; LINKAGE_LEN];
        self.memory.read(Addr::new(target), &mut entry).ok()?;
        match linkage_word(&entry, target) {
            Some(at) => word(at),
            None => Some(Addr::new(target)),
        }
    }
}
