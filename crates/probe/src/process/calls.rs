//! A call of a probed function, from its entry to its return.

use leaktap_api::{Action, Entered, FunctionId, Place};
use leaktap_arch::ARGUMENTS;
use leaktap_ledger::{FamilyId, Key};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Registers, Tid};

use super::Process;
use super::mappings::moment;
use super::thread::{Free, Note, Undo, undo};
use crate::breakpoints::Purpose;
use crate::calls::{Call, Entry};
use crate::outcome::Outcome;
use crate::record::{Freed, Lost, Recorder};
use crate::stack;

impl Process {
    pub(super) fn entered(
        &mut self,
        tid: Tid,
        function: FunctionId,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Some(action) = self.functions().action(function) else {
            return;
        };
        self.swallowed.entered(function);
        self.note_code(action, [0, 1, 2].map(|n| registers.argument(n)));
        let (family, is_told) = self.family_at(registers.ip());
        match action.shape() {
            Action::PROTECT => return self.protects(registers, recorder),
            Action::LOCK => {
                return self.look_for_departure(Action::LOCK, [registers.argument(0), 0, 0]);
            }
            Action::CHANGE_MODULES => return,
            _ if action.is_idle(registers.argument(2)) => return,
            _ => {}
        }
        let entry_sp = registers.sp();
        let Ok(ret) = self.memory.read_u64(entry_sp).map(Addr::new) else {
            return; // the call instruction has just written there: the thread is being killed
        };
        if self.modules.is_allocator(ret) {
            return;
        }
        let entered = self.made_by(action, family, registers, ret);
        let start = stack::caller(ret, entry_sp, registers.bp());
        if self.is_part_of_noted(action, registers, entered, start) {
            return;
        }
        let arguments: [u64; ARGUMENTS] = std::array::from_fn(|n| registers.argument(n));
        let call = Call {
            function,
            family,
            is_told,
            entry_sp,
            ret,
            action,
            arguments,
            begun: self.moment(),
            undo: Undo::default(),
        };
        let agent = self.injection.agent();
        let thread = self.threads.entry(tid).or_default();
        let rules = self.modules.rules();
        let mut callers = self.walker.callers(&self.memory, rules, start);
        let dead = |dead: Call<Undo>| undo(dead.undo, agent, recorder);
        if thread.calls.enter(entered, &call, &mut callers, dead) == Entry::Own {
            self.begin(tid, call, registers, recorder);
        }
    }

    /// Who has made a call that returns to `ret`. One from the program's own code is no allocator's
    /// doing, wherever the stack leads: but for memory that an allocator in that code asks for.
    fn made_by(
        &self,
        action: Action,
        family: FamilyId,
        registers: &Registers,
        ret: Addr,
    ) -> Entered {
        let is_inside = match action.is_mapping() {
            true => self.modules.is_system(ret) || self.is_beside_allocator(ret),
            false => self.modules.is_inside(family, ret),
        };
        let is_allocator = is_inside || self.modules.is_same(ret, registers.ip());
        Entered {
            place: Place {
                sp: registers.sp().get(),
                ret: ret.get(),
            },
            by_program: !is_allocator,
        }
    }

    /// A call of its own begins.
    fn begin(
        &mut self,
        tid: Tid,
        mut call: Call<Undo>,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Call { action, ret, .. } = call;
        let block = action.block(&call.arguments).map(Addr::new);
        if action.is_free() {
            let free = block.map(|block| self.free(block, &call, registers, recorder));
            let thread = self.threads.entry(tid).or_default();
            thread.free = free.map(|freed| Free::of(registers, freed));
            thread.calls.push(call);
            return;
        }
        if self
            .breakpoints
            .insert(ret, Purpose::Result(call.function))
            .is_err()
        {
            recorder.lost(Lost::ReturnUnprobed);
            return;
        }
        let agent = self.injection.agent().filter(|_| !action.is_mapping());
        call.undo.noted = agent.and_then(|agent| Note::of(agent, registers.fs_base(), &call));
        if action.shape() == Action::SET_BREAK {
            call.arguments[1] = self.modules.current_break(&self.memory);
        }
        call.undo.freed = block.map(|block| self.free(block, &call, registers, recorder));
        self.threads.entry(tid).or_default().calls.push(call);
    }

    /// `call`, which has just been entered, frees `block`.
    fn free(
        &mut self,
        block: Addr,
        call: &Call<Undo>,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) -> Freed {
        let start = stack::caller(call.ret, call.entry_sp, registers.bp());
        let rules = self.modules.rules();
        let stack = match recorder.keeps_free_stacks() {
            true => Some(self.walker.walk(&self.memory, rules, start)),
            false => None,
        };
        let key = Key::new(call.family, block.get());
        let freed = recorder.freed(key, call.ret, stack);
        if let Freed::Unmatched(_) = freed {
            let stack = self.walker.walk(&self.memory, rules, start);
            recorder.misfreed(key, stack);
        }
        freed
    }

    /// The family of the function at `at`, and whether a user has told of it.
    fn family_at(&self, at: Addr) -> (FamilyId, bool) {
        let mut points = self.points.iter();
        let point = points.find(|point| point.address == at);
        point.map_or((FamilyId::FIRST, false), |point| {
            (point.family, point.is_told)
        })
    }

    /// True of code of a module in which a function of the heap is watched.
    fn is_beside_allocator(&self, at: Addr) -> bool {
        let mut points = self.points.iter();
        self.modules.image().module_at(at).is_some_and(|module| {
            points.any(|point| !point.known.action.is_mapping() && module.contains(point.address))
        })
    }

    pub(super) fn returned(
        &mut self,
        tid: Tid,
        at: Addr,
        function: FunctionId,
        registers: &Registers,
        recorder: &mut dyn Recorder,
    ) {
        let Some(thread) = self.threads.get_mut(&tid) else {
            return;
        };
        let agent = self.injection.agent();
        let over = |dead: Call<_>| undo(dead.undo, agent, recorder);
        let Some(mut call) = thread.calls.returned(at, registers.sp(), over) else {
            return self.returned_unseen(function, at);
        };
        thread.free = None;
        let number = agent.and_then(|agent| agent.number(registers.fs_base()));
        let noted = number.and_then(|number| Some((agent?.outer(number)?, agent?.handed(number)?)));
        self.mapped += u64::from(agent.is_none());
        let moment = moment(self.mapped, agent);
        loop {
            call.undo.forget_note(agent);
            let start = stack::caller(at, call.entry_sp, registers.bp());
            let mut outcome = Outcome {
                memory: &self.memory,
                modules: &mut self.modules,
                walker: &mut self.walker,
                recorder,
                handed: thread.handed(noted),
                moment,
            };
            outcome.of(&call, registers.result(), start);
            thread.hand(outcome.handed, noted);
            self.breakpoints.returned(at);
            // What has jumped there returns with it.
            let over = |dead: Call<_>| undo(dead.undo, agent, recorder);
            match thread.calls.returned(at, registers.sp(), over) {
                Some(jumped) => call = jumped,
                None => return,
            }
        }
    }
}
