//! What the program maps by itself: noted by the agent, or seen at a breakpoint.

use leaktap_agent::layout::MAPPINGS;
use leaktap_agent::mapping::Noted;
use leaktap_api::{Action, Effect, effect};
use leaktap_ledger::StackId;
use leaktap_memory::Addr;
use leaktap_tracee::Registers;

use super::Process;
use crate::agent::{Agent, Injection, Unread};
use crate::mapping::Mapping;
use crate::modules::Modules;
use crate::record::{Lost, Recorder};

impl Process {
    /// Tells `recorder` of the calls that the agent has noted since.
    pub fn read_mappings(&mut self, recorder: &mut dyn Recorder) {
        // Those that come meanwhile have time until the next look.
        for _ in 0..MAPPINGS {
            let agent = self.injection.agent_mut();
            match agent.and_then(Agent::read_mapping) {
                Some((noted, moment)) => self.noted(&noted, moment, recorder),
                None => return,
            }
        }
    }

    /// As [`Process::read_mappings`], the last time: no thread notes anything any more. Of a
    /// process that `has_ended`, what was about to be noted means nothing.
    pub fn read_last_mappings(&mut self, has_ended: bool, recorder: &mut dyn Recorder) {
        let next = |injection: &mut Injection| injection.any_agent_mut()?.read_last_mapping();
        for _ in 0..MAPPINGS {
            match next(&mut self.injection) {
                Some(Unread::Noted(noted, moment)) => self.noted(&noted, moment, recorder),
                Some(Unread::Unwritten) if has_ended => {}
                Some(Unread::Unwritten) => recorder.lost(Lost::Unfinished),
                None => return,
            }
        }
    }

    /// Code that the program itself maps is on no list of the dynamic linker's.
    pub(super) fn note_code(&mut self, action: Action, arguments: [u64; 3]) {
        /// Of mmap(2) and mprotect(2).
        const PROT_EXEC: u64 = 4;
        let [.., rights] = arguments;
        let sets_rights = matches!(action.shape(), Action::MAP | Action::PROTECT);
        if sets_rights && rights & PROT_EXEC != 0 {
            self.modules.look_at_all();
        }
    }

    /// How many calls have mapped something, or may have.
    pub(super) fn moment(&self) -> u64 {
        moment(self.mapped, self.injection.agent())
    }

    /// The agent has noted a call; `moment` is the position behind the note.
    fn noted(&mut self, noted: &Noted, moment: u64, recorder: &mut dyn Recorder) {
        if self.injection.agent().is_some() {
            self.look_for_departure(noted.action, noted.arguments);
        }
        self.note_code(noted.action, noted.arguments);
        let effect = effect(noted.action, &noted.arguments, noted.result);
        let mut mapping = Mapping {
            is_system: effect.maps() && self.is_allocators(noted),
            begun: self.mapped.saturating_add(noted.begun),
            moment: self.mapped.saturating_add(moment),
            recorder,
        };
        mapping.did(effect, |recorder, what| {
            recorder.mapped_by(StackId(noted.stack), noted.time, what);
        });
    }

    /// See [`Modules::map_for_allocator`](crate::Modules::map_for_allocator).
    fn is_allocators(&mut self, noted: &Noted) -> bool {
        let agent = self.injection.any_agent();
        let caller = |_: &mut Modules| agent?.second_frame(StackId(noted.stack));
        let ret = Addr::new(noted.ret);
        self.modules.map_for_allocator(ret, caller)
    }

    /// A thread with `registers` has come to mprotect(2). What may not be used any more is noted
    /// now: nobody waits for the call's end.
    pub(super) fn protects(&mut self, registers: &Registers, recorder: &mut dyn Recorder) {
        let [at, len, protection] = [0, 1, 2].map(|n| registers.argument(n));
        let mut mapping = Mapping {
            is_system: false,
            begun: u64::MAX,
            moment: u64::MAX,
            recorder,
        };
        let protected = Effect::Protected {
            at,
            len,
            protection,
        };
        mapping.did(protected, |_, _| {});
        self.look_for_departure(Action::PROTECT, [at, len, protection]);
    }
}

/// See [`Process::moment`]: `mapped` before there was an agent.
pub(super) fn moment(mapped: u64, agent: Option<&Agent>) -> u64 {
    mapped.saturating_add(agent.map_or(0, Agent::moment))
}
