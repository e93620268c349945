//! Calls of mmap(2) and its kin: which of them are the program's own, and the notes of those.

use core::cell::Cell;
use core::slice;
use core::sync::atomic::Ordering::{AcqRel, Relaxed};

use leaktap_api::{
    Action, Effect, Entered, Innermost, Nested, Place, Standing, State, effect, standing,
};
use leaktap_ledger::{FamilyId, Key};

use crate::agent::{Agent, set_outer};
use crate::layout::{Call, Descriptor, Loss, MAPPINGS, Module, Thread, function, running};
use crate::mapping::Noted;
use crate::nesting::{Entry, Walked, entry};
use crate::queue::{self, Queue};
use crate::record::{Allocated, Sought};
use crate::stack::Stack;

/// Of mprotect(2).
const PROT_WRITE: u64 = 2;

/// A call of a function that maps memory, as it is entered.
pub(crate) struct Mapping<'a> {
    pub(crate) descriptor: &'a Descriptor,
    /// The first three.
    pub(crate) arguments: [u64; 3],
    /// The fourth: flags of mmap(2).
    pub(crate) fourth: u64,
    /// Stack pointer, where the return address is.
    pub(crate) sp: u64,
}

impl Mapping<'_> {
    fn ret(&self) -> u64 {
        // SAFETY: the call instruction has just written the return address there.
        unsafe { *(self.sp as *const u64) }
    }
}

impl Agent {
    /// Whether a call is the C library's own doing, or the allocator's, or of no interest. Whosever
    /// it is: what it unmaps is no stack any more.
    pub(crate) fn passes(self, call: &Mapping<'_>) -> bool {
        let action = call.descriptor.action;
        let [start, len, third] = call.arguments;
        if action.unmaps(call.fourth) && start != 0 {
            self.unmaps(start, len);
        }
        if action.closes(third) {
            self.control.live.ranges.fetch_add(1, AcqRel);
        }
        let ret = call.ret();
        let mut system = self.control.system.iter();
        action.is_idle(third) || system.any(|module| module.contains(ret))
    }

    fn queue(self) -> Queue<'static> {
        let places = self.control.mappings as *const queue::Place;
        Queue {
            next: &self.control.told.noted,
            // SAFETY: the tracer maps as many there before it arms the first probe, and keeps them
            // mapped while any thread is in the agent; all of this is atomic.
            places: unsafe { slice::from_raw_parts(places, MAPPINGS) },
        }
    }

    fn note_mapping(self, noted: Noted) {
        if !self.queue().put(noted.to_words()) {
            self.lose(Loss::Unread);
        }
    }

    /// A call of mprotect(2) or mlockall(2) begins, and is noted. True if it may make code writable
    /// in which the tracer has written, or fill what is reserved.
    pub(crate) fn asks(self, call: &Mapping<'_>) -> bool {
        self.note_mapping(Noted {
            action: call.descriptor.action,
            kind: function(call.descriptor.kind),
            ret: call.ret(),
            arguments: call.arguments,
            result: 0,
            stack: 0,
            time: 0,
            begun: u64::MAX,
        });
        let [first, len, protection] = call.arguments;
        match call.descriptor.action.shape() {
            Action::LOCK => call.descriptor.action.fills(first),
            _ => protection & PROT_WRITE != 0 && self.has_code(first, len),
        }
    }

    /// Whether code of some module is in `len` bytes at `start`.
    fn has_code(self, start: u64, len: u64) -> bool {
        let Some(last) = start.saturating_add(len).checked_sub(1) else {
            return false;
        };
        // SAFETY: as in `AllRows::module`.
        let found = unsafe { self.control.live.modules.find(last) };
        found.is_some_and(|words| Module::from_words(words).range.end > start)
    }

    /// Where the C library says that the heap segment ends; 0 if it does not.
    fn current_break(self) -> u64 {
        let at = self.control.current_break as *const u64;
        // SAFETY: a variable of the C library's, which is never unloaded.
        unsafe { at.as_ref() }.map_or(0, |end| *end)
    }

    /// Whether a call of `thread` is made by a function that a user has told of.
    fn is_of_pool(self, thread: *mut Thread, sp: u64, bp: u64) -> bool {
        // SAFETY: the state of this thread, which exists while the agent is present.
        let [pool, ret] = unsafe { &(*thread).pool };
        let place = Place {
            sp: pool.load(Relaxed),
            ret: ret.load(Relaxed),
        };
        place.sp != 0 && self.is_part_of(place, thread, sp, bp)
    }

    #[cold]
    fn is_part_of(self, pool: Place, thread: *mut Thread, sp: u64, bp: u64) -> bool {
        // SAFETY: as above.
        let known = unsafe { (*thread).stack };
        let mut callers = Walked {
            agent: self,
            through: &Cell::new(false),
            stack: Stack::new(self, known, sp, None),
            family: None,
            sp,
            bp,
        };
        let (entered, _) = callers.of(0);
        let innermost = Innermost {
            place: pool,
            state: State::Runs,
            may_jump: true,
            is_foreign: false,
        };
        let is_call = |place: Place| place == pool;
        let nested = None::<&mut Nested<0>>;
        let found = standing(entered, innermost, is_call, nested, &mut callers);
        matches!(found, Standing::PartOf(_))
    }
}

impl Call {
    /// A function that maps memory is entered. 1 if its original is to be called, and what came of
    /// that to be noted.
    #[cold]
    pub(crate) fn enter_mapping(&mut self, agent: Agent, fs: u64, bp: u64, fourth: u64) -> u32 {
        let sp = self.entry_sp();
        let descriptor = self.descriptor();
        let mapping = Mapping {
            descriptor,
            arguments: self.arguments,
            fourth,
            sp,
        };
        if agent.passes(&mapping) {
            return 0;
        }
        let Some(thread) = agent.thread(fs) else {
            agent.lose(Loss::NoThread);
            return 0;
        };
        let Entry::Own { before } = entry(agent, thread, None, (sp, bp)) else {
            return 0;
        };
        if agent.is_of_pool(thread, sp, bp) {
            return 0;
        }
        self.thread = thread as u64;
        self.before = before;
        self.moving = match descriptor.action.shape() {
            Action::SET_BREAK => agent.current_break(),
            _ => agent.queue().next(),
        };
        set_outer(thread, running(sp, before));
        1
    }

    /// The original has returned `result`: notes that, unless it has failed.
    #[cold]
    pub(crate) fn mapped(&self, agent: Agent, result: u64, bp: u64) {
        let descriptor = self.descriptor();
        let mut noted = Noted {
            action: descriptor.action,
            kind: function(descriptor.kind),
            // SAFETY: the agent is about to return there.
            ret: unsafe { *(self.entry_sp() as *const u64) },
            arguments: self.arguments,
            result,
            stack: 0,
            time: agent.control.live.clock.load(Relaxed),
            begun: self.moving,
        };
        if descriptor.action.shape() == Action::SET_BREAK {
            noted.arguments[1] = self.moving;
            // Nobody else gets what the end of the heap segment has left.
            noted.begun = agent.queue().next();
        }
        let effect = effect(noted.action, &noted.arguments, result);
        if effect == Effect::Nothing {
            return;
        }
        if effect.maps() {
            let Some(state) = agent.state(self.thread(), self.before) else {
                return;
            };
            let stack = agent.stack(state, &self.as_allocated(bp), Sought::NotYet);
            agent.done(state, self.before);
            let Some(stack) = stack else {
                return agent.lose(Loss::Full);
            };
            noted.stack = stack.0;
        }
        agent.note_mapping(noted);
    }

    /// As of a block, for its stack.
    fn as_allocated(&self, bp: u64) -> Allocated {
        Allocated {
            key: Key::new(FamilyId::FIRST, 0),
            size: 0,
            kind: self.descriptor().kind,
            sp: self.entry_sp(),
            bp,
        }
    }
}
