//! Is a call one of its own, or part of one that is running? What `standing` of the api crate has
//! to know for that.

use core::cell::Cell;
use core::ops::ControlFlow;

use leaktap_api::{
    Caller, Entered, Innermost, Nested, Place, Reach, Stack as Callers, Standing, State, standing,
};
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_unwind::{End, Rules, Start, walk_with};

use crate::agent::{Agent, outer, set_outer};
use crate::layout::{BUSY, Call, Known, MARKS, NESTED, NOTED, TAKEN, Thread, UNDER, Window};
use crate::rules::AllRows;
use crate::stack::Stack;

/// What a call is.
pub(crate) enum Entry {
    /// The allocator's own, part of a call that is running.
    Nested,
    /// The program's. What the thread was doing is to be restored when the call returns.
    Own {
        /// [`Thread::outer`] as it was, or 0 if that was over.
        before: u64,
    },
}

/// Decides for a call of a function of `family`, or of one that maps memory, that was entered with
/// its return address at `sp`.
#[inline]
pub(crate) fn entry(
    agent: Agent,
    thread: *mut Thread,
    family: Option<FamilyId>,
    (sp, bp): (u64, u64),
) -> Entry {
    if family.is_some_and(|family| agent.is_from_allocator(family, sp)) {
        return Entry::Nested;
    }
    match outer(thread) {
        0 => Entry::Own { before: 0 },
        running => among(agent, thread, running, family, (sp, bp)),
    }
}

/// What of the thread's state is needed.
struct Taken {
    known: Known,
    window: &'static Window,
    nested: &'static mut Nested<NESTED>,
}

/// There is a call that has not returned: it runs, or was left by longjmp(3) or an exception.
#[cold]
fn among(
    agent: Agent,
    thread: *mut Thread,
    running: u64,
    family: Option<FamilyId>,
    (sp, bp): (u64, u64),
) -> Entry {
    // Interrupted while it worked for this thread, the agent's notes may be half written.
    let taken = (running & TAKEN == 0).then(|| take(thread, running));
    let (known, window, nested) = match taken {
        Some(taken) => (taken.known, Some(taken.window), Some(taken.nested)),
        None => (Known::NOTHING, None, None),
    };
    let through = Cell::new(false);
    let mut callers = Walked {
        agent,
        through: &through,
        stack: Stack::new(agent, known, sp, window),
        family,
        sp,
        bp,
    };
    let earlier = running & !MARKS;
    let (entered, innermost) = callers.of(running);
    // The agent has called the function for it, unless that has an int3: else it was left, and
    // what returns to that place is another one.
    let is_earlier = |sp| sp == earlier && (running & NOTED != 0 || through.get());
    let is_call = |place: Place| is_earlier(place.sp) || agent.is_on_record(thread, place.sp);
    let found = standing(entered, innermost, is_call, nested, &mut callers);
    let (entry, now) = match found {
        Standing::PartOf(call) if call == earlier => (Entry::Nested, running),
        Standing::PartOf(call) => (Entry::Nested, call),
        Standing::Within(call) if call == earlier => (Entry::Own { before: running }, running),
        Standing::Within(call) => (Entry::Own { before: call }, running),
        Standing::Alone { .. } => (Entry::Own { before: 0 }, running),
    };
    let is_over = match found {
        Standing::PartOf(call) | Standing::Within(call) => call != earlier,
        Standing::Alone { is_certain } => is_certain,
    };
    if is_over || matches!(entry, Entry::Own { .. }) {
        agent.put_on_record(thread, earlier, sp, is_over);
    }
    match found {
        Standing::PartOf(call) | Standing::Within(call) if call == earlier => {}
        Standing::Alone { is_certain: true } => agent.left(thread, running, |_| true),
        _ => agent.left(thread, running, |sp| sp == earlier),
    }
    if running & TAKEN == 0 {
        give_back(thread, now, callers.stack.known());
    }
    entry
}

fn state(running: u64) -> State {
    match running & TAKEN {
        0 => State::Runs,
        UNDER => State::Under,
        _ => State::Busy,
    }
}

fn take(thread: *mut Thread, running: u64) -> Taken {
    set_outer(thread, running | BUSY);
    // SAFETY: the state of this thread, whose signal handlers keep away while it is busy.
    unsafe {
        Taken {
            known: (*thread).stack,
            window: &(*thread).window,
            nested: &mut (*thread).nested,
        }
    }
}

fn give_back(thread: *mut Thread, running: u64, known: Known) {
    // SAFETY: as in `take`.
    unsafe { (*thread).stack = known };
    set_outer(thread, running);
}

/// The callers of a call that was entered with its return address at `sp`.
pub(crate) struct Walked<'w> {
    pub(crate) agent: Agent,
    /// Whether the walk has just passed a frame of the agent's.
    pub(crate) through: &'w Cell<bool>,
    pub(crate) stack: Stack<'w>,
    /// Whose function it is, nothing if that maps memory.
    pub(crate) family: Option<FamilyId>,
    pub(crate) sp: u64,
    pub(crate) bp: u64,
}

impl Walked<'_> {
    fn return_address(&self) -> Option<u64> {
        self.stack.read_u64(Addr::new(self.sp)).ok()
    }

    /// The call, and the one that [`Thread::outer`] says.
    pub(crate) fn of(&self, running: u64) -> (Entered, Innermost) {
        let ret = self.return_address().unwrap_or(0);
        let control = self.agent.control;
        // Whatever allocator maps memory, that is its own.
        let bit = |family: FamilyId| 1_u32.wrapping_shl(family.number() as u32);
        let bits = self.family.map_or(!0, bit);
        let inside = control.inside.iter().zip(&control.inside_of);
        let mut inside = inside.filter(|(_, families)| **families & bits != 0);
        let entered = Entered {
            place: Place { sp: self.sp, ret },
            // A function that the agent has called may end with a jump, so is called by that.
            by_program: match self.agent.owns(ret) {
                true => self.is_jump_of_another(running),
                false => !inside.any(|(module, _)| module.contains(ret)),
            },
        };
        let innermost = Innermost {
            place: Place {
                sp: running & !MARKS,
                ret,
            },
            state: state(running),
            // One that has a detour returns to the agent.
            may_jump: running & NOTED != 0,
            is_foreign: false,
        };
        (entered, innermost)
    }

    /// Whether a function of another family, which the agent has called for the call that `running`
    /// says, has ended with a jump here: as a pool's that frees a chunk.
    fn is_jump_of_another(&self, running: u64) -> bool {
        let entry_sp = running & !MARKS;
        if running & NOTED != 0 || Call::return_slot(entry_sp) != self.sp {
            return false;
        }
        let call = entry_sp.wrapping_sub(Call::LEN as u64) as *const Call;
        // SAFETY: the agent has called from there, with the return address below it.
        let descriptor = unsafe { (*call).descriptor() };
        self.family.is_some_and(|family| descriptor.family != family)
    }
}

impl Callers for Walked<'_> {
    fn word(&self, at: u64) -> Option<u64> {
        self.stack.guess_u64(Addr::new(at)).ok()
    }

    fn walk(&mut self, mut visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach {
        let Some(ip) = self.return_address() else {
            return Reach::BrokeOff;
        };
        let start = Start {
            ip: Addr::new(ip),
            sp: Addr::new(self.sp.wrapping_add(8)),
            bp: self.bp,
        };
        let mut rows = AllRows(self.agent);
        let mut outermost = Addr::default();
        self.through.set(false);
        let end = walk_with(start, &self.stack, &mut rows, |visited| {
            outermost = visited.frame.lookup();
            let ret = visited.frame.address().get();
            let place = Place {
                sp: visited.sp.get().wrapping_sub(8),
                ret,
            };
            let signal = visited.signal;
            let flow = visit(Caller { place, signal });
            self.through.set(self.agent.owns(ret));
            flow
        });
        match end {
            End::TooDeep => Reach::Stopped,
            // What the code alone says may be wrong, and without that, a frame pointer of 0 need
            // not mean the root: musl's code has no frame pointers.
            End::Root if rows.rule(outermost).is_described() => Reach::Root,
            _ => Reach::BrokeOff,
        }
    }
}
