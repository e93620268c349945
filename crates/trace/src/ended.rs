//! What came of a session.

use leaktap_report::{Mode, Report};
use leaktap_symbols::Resolver;

use crate::error::Error;
use crate::target::{Exit, Target};

/// What came of a session.
pub struct Outcome {
    /// Of each process, in the order in which they came under trace: first those asked for.
    pub processes: Vec<Ended>,
    pub(crate) resolver: Resolver,
}

impl Outcome {
    /// How much was seen of what was asked for: of a program that was launched, in any of its
    /// processes; else in each one.
    pub fn sight(&self) -> Option<Sight> {
        let is_launched = |ended: &Ended| ended.report.mode == Mode::Run;
        let launched = self.processes.first().is_some_and(is_launched);
        let asked = |ended: &&Ended| launched || ended.report.target.parent.is_none();
        let sights = self.processes.iter().filter(asked).map(|ended| ended.sight);
        sights.reduce(|a, b| match launched {
            true => Sight {
                allocator: a.allocator || b.allocator,
                any: a.any || b.any,
                is_unwatched: a.is_unwatched && b.is_unwatched,
            },
            false => Sight {
                allocator: a.allocator && b.allocator,
                any: a.any && b.any,
                is_unwatched: a.is_unwatched || b.is_unwatched,
            },
        })
    }

    /// An error if nothing could be seen of what was launched, unless it is known for sure that it
    /// allocates nothing.
    pub(crate) fn require_sight(mut self) -> Result<Outcome, Error> {
        let missing = match self.processes.as_mut_slice() {
            [only] => only.missing.take(),
            _ => None,
        };
        missing.map_or(Ok(self), Err)
    }

    /// leaktap is about to end: to take debug information apart piece by piece would take as long
    /// as some reports do.
    pub fn forget_names(self) {
        std::mem::forget(self.resolver);
    }
}

/// A process whose trace is over.
#[derive(Debug)]
pub struct Ended {
    /// What it holds, with names.
    pub report: Report,
    /// Set if it has ended.
    pub exit: Option<Exit>,
    /// How much of it was seen.
    pub sight: Sight,
    /// How many came under trace before it.
    pub(crate) number: usize,
    /// It has no function that allocates, though it might.
    pub(crate) missing: Option<Error>,
}

/// How much of what a process allocates was seen.
#[derive(Clone, Copy, Debug)]
pub struct Sight {
    /// Calls of malloc were seen, or would have been; of a small program that has no malloc, those
    /// of what allocates in its place.
    pub allocator: bool,
    /// Any allocations were seen, or would have been.
    pub any: bool,
    /// It lives, has functions that allocate, and none is watched. Not so in a program that has
    /// just been executed, before it has loaded its libraries.
    pub is_unwatched: bool,
}

impl Ended {
    /// All that `target` has seen; `resolver` names it.
    pub(crate) fn new(target: Target, resolver: &mut Resolver) -> Ended {
        Ended {
            report: target.report(resolver),
            exit: target.exit,
            sight: Sight {
                allocator: target.watches_allocator(),
                any: target.watches_any(),
                is_unwatched: target.is_unwatched() && target.exit.is_none(),
            },
            number: target.number,
            missing: target.missing_sight(),
        }
    }
}
