//! Which calls return to the agent: its own record, in the shared memory, of each thread.

use std::mem::size_of;

use leaktap_agent::layout::{KEYS, Thread, set_of_keys, shared_key};
use leaktap_agent::{KEY_BITS, KEYS_AT, THREADS_AT};
use leaktap_memory::{Addr, ReadMemory};

use super::Agent;

const WORD: usize = size_of::<u64>();

impl Agent {
    /// The stack pointers, at their entries, of all calls that may return to the agent. Nothing if
    /// some are not on record.
    pub(super) fn calls(&self) -> Option<Vec<Addr>> {
        if self.regions.shared.is_empty() {
            return Some(Vec::new()); // nothing was ever led here
        }
        let mut keys = vec![0; (KEYS << KEY_BITS) * WORD];
        self.memory.read(self.at(KEYS_AT), &mut keys).ok()?;
        let mut calls = Vec::new();
        for (index, key) in keys.chunks_exact(WORD).enumerate() {
            if key != [0; WORD] && !self.add_calls(index, &mut calls) {
                return None;
            }
        }
        Some(calls)
    }

    /// As [`Agent::calls`], of the thread with `fs` as its fs base alone.
    pub(crate) fn calls_of(&self, fs: u64) -> Option<Vec<Addr>> {
        let first = set_of_keys(fs, KEY_BITS) * KEYS;
        let mut keys = [0; KEYS * WORD];
        let at = KEYS_AT + (first * WORD) as u64;
        self.memory.read(self.at(at), &mut keys).ok()?;
        let mut calls = Vec::new();
        let mut ways = keys.chunks_exact(WORD);
        let is_shared = |key: &[u8]| key == shared_key(fs).to_le_bytes();
        if ways.clone().any(is_shared) {
            return None;
        }
        let way = ways.position(|key| key == fs.to_le_bytes());
        let complete = way.is_none_or(|way| self.add_calls(first + way, &mut calls));
        complete.then_some(calls)
    }

    /// Adds those of thread `index`. False if there may be more.
    fn add_calls(&self, index: usize, calls: &mut Vec<Addr>) -> bool {
        let mut head = [0; Thread::HEAD_LEN];
        let at = THREADS_AT + (index * size_of::<Thread>()) as u64;
        if self.memory.read(self.at(at), &mut head).is_err() {
            return false;
        }
        let (running, complete) = Thread::running(&head);
        calls.extend(running.map(Addr::new));
        complete
    }

    fn at(&self, offset: u64) -> Addr {
        self.regions.shared.start.wrapping_offset(offset as i64)
    }
}
