//! Int3s that somebody else takes: a uprobe that is set where we have one, and after us, gets its
//! trap before any tracer.
//!
//! Nothing tells of that but what is missing: calls return that were never entered.

use std::collections::{BTreeSet, HashMap};

use leaktap_memory::{Addr, ReadMemory};

use super::Process;
use leaktap_api::FunctionId;

/// So many calls in a row return unseen before it is said.
const CERTAIN: u32 = 64;

/// `call rel32`, `call [rip+rel32]`, `jmp [rip+rel32]`.
const CALL: u8 = 0xe8;
const CALL_BY_WORD: [u8; 2] = [0xff, 0x15];
const JUMP_BY_WORD: [u8; 2] = [0xff, 0x25];
const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

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
        let mut code = [0; 6];
        self.memory.read(ret.wrapping_offset(-6), &mut code).ok()?;
        let [a, b, distance @ ..] = code;
        let target = ret.wrapping_offset(i64::from(i32::from_le_bytes(distance)));
        if [a, b] == CALL_BY_WORD {
            return self.memory.read_u64(target).ok().map(Addr::new);
        }
        if b != CALL {
            return None;
        }
        let mut stub = [0; 10];
        self.memory.read(target, &mut stub).ok()?;
        let jump = stub.strip_prefix(&ENDBR64).unwrap_or(&stub);
        let skipped = (stub.len() - jump.len()) as i64;
        let Some(&[a, b, c, d]) = jump
            .strip_prefix(&JUMP_BY_WORD)
            .and_then(<[u8]>::first_chunk)
        else {
            return Some(target);
        };
        let end = target.wrapping_offset(skipped + 6);
        let word = end.wrapping_offset(i64::from(i32::from_le_bytes([a, b, c, d])));
        self.memory.read_u64(word).ok().map(Addr::new)
    }
}
