//! Threads as the agent knows them, and what it has noted of their calls.

use std::sync::atomic::Ordering::Acquire;

use leaktap_agent::layout::{MARKS, NOTED, TAKEN, UNDER, key_of_number};
use leaktap_api::{Action, Entered, Innermost, Nested, Place, Standing, State, standing};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Registers, Tid};
use leaktap_unwind::Start;

use super::Process;

impl Process {
    /// A thread begins: it is stopped, and its registers are these.
    pub fn thread_begins(&mut self, tid: Tid, registers: &Registers) {
        if let Some(agent) = self.injection.agent_mut() {
            agent.thread_begins(registers);
            self.fs_bases.insert(tid, registers.fs_base());
        }
    }

    /// Others run at the same time as `tid`, with its fs base: the agent cannot tell them apart.
    pub fn share_fs_base(&mut self, tid: Tid) {
        if let Some((agent, fs)) = self.injection.agent().zip(self.fs_bases.get(&tid)) {
            agent.share_state(*fs);
            let number = tid.in_its_namespace().cast_unsigned();
            self.numbers.insert(tid, key_of_number(number));
        }
    }

    /// The agent need not know a thread any longer that has ended, unless another one has the same
    /// fs base.
    pub(super) fn forget_fs_base(&mut self, tid: Tid) {
        let Some(fs) = self.fs_bases.remove(&tid) else {
            return;
        };
        let number = self.numbers.remove(&tid);
        let Some(agent) = self.injection.agent() else {
            return;
        };
        number.into_iter().for_each(|key| agent.thread_gone(key));
        match self.fs_bases.values().filter(|other| **other == fs).count() {
            0 => agent.thread_gone(fs),
            1 => agent.unshare_state(fs),
            _ => {}
        }
        if self.fs_bases.is_empty() {
            agent.all_gone();
        }
    }

    /// Time passes: the program may have installed a seccomp filter, which might kill it for a
    /// system call that it does not make itself. A few threads are looked at each time.
    pub fn look_for_filters(&mut self) {
        /// Each takes some 20 µs.
        const THREADS: usize = 8;
        let Some(agent) = self.injection.agent() else {
            return;
        };
        let from = self.looked_at % self.fs_bases.len().max(1);
        self.looked_at = from + THREADS;
        let mut threads = self.fs_bases.keys().skip(from).take(THREADS);
        if threads.any(|thread| thread.is_filtered()) {
            agent.allow_system_calls(false);
        }
    }

    /// A thread with registers `parent` makes `child`, a process with a copy of the memory: notes
    /// which of its calls would return to the agent there, for [`Process::disarm_copy`].
    pub fn copy_begins(&mut self, parent: &Registers, child: Tid) {
        if let Some(agent) = self.injection.agent()
            && let Some(calls) = agent.calls_of(parent.fs_base())
        {
            self.copies.insert(child, calls);
        }
    }

    /// Tells the agent what a call is about to unmap. True if the call is part of one that the
    /// agent has noted.
    pub(super) fn is_part_of_noted(
        &mut self,
        action: Action,
        registers: &Registers,
        entered: Entered,
        start: Start,
    ) -> bool {
        let Some(agent) = self.injection.agent_mut() else {
            return false;
        };
        if action.unmaps(registers.argument(3)) {
            let start = Addr::new(registers.argument(0));
            let end = start.checked_add(registers.argument(1)).unwrap_or(start);
            agent.unmapping(&(start..end));
        }
        let number = agent.number(registers.fs_base());
        let outer = number.and_then(|number| agent.outer(number));
        let outer = outer.map_or(0, |outer| outer.load(Acquire));
        // What breakpoints have noted there is among the calls here, too.
        outer != 0 && outer & NOTED == 0 && self.is_inside(outer, entered, start)
    }

    /// Whether what is `entered`, and goes on at `start`, is part of a call that the agent has
    /// noted with `outer`.
    fn is_inside(&mut self, outer: u64, entered: Entered, start: Start) -> bool {
        let sp = outer & !MARKS;
        let Ok(ret) = self.memory.read_u64(Addr::new(sp)) else {
            return false;
        };
        let innermost = Innermost {
            place: Place { sp, ret },
            state: match outer & TAKEN {
                0 => State::Runs,
                UNDER => State::Under,
                _ => State::Busy,
            },
            may_jump: false,
            is_foreign: false,
        };
        let is_call = |place| place == innermost.place;
        let rules = self.modules.rules();
        let mut callers = self.walker.callers(&self.memory, rules, start);
        let found = standing(
            entered,
            innermost,
            is_call,
            None::<&mut Nested<0>>,
            &mut callers,
        );
        matches!(found, Standing::PartOf(_))
    }
}
