//! One draw: who, how, when and what.

use std::fmt;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::fault::Fault;
use crate::moment::{Anchor, Moment};
use crate::random::Random;
use crate::subject::Subject;

/// How leaktap watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Auto,
    Breakpoint,
}

/// All that a trial depends on.
#[derive(Clone, Debug)]
pub(crate) struct Draw {
    pub(crate) seed: u64,
    pub(crate) number: u64,
    pub(crate) subject: Subject,
    pub(crate) engine: Engine,
    pub(crate) fault: Fault,
    pub(crate) moment: Moment,
    /// How often leaktap attaches.
    pub(crate) rounds: u64,
    /// In which round the fault comes.
    pub(crate) faulty: u64,
    /// How long leaktap stays.
    pub(crate) stays: Duration,
    /// How long a fault that ends goes on.
    pub(crate) lasts: Duration,
    /// Whether a target that is stopped or frozen is so until leaktap has ended, or three seconds
    /// have gone.
    pub(crate) outlasts: bool,
    /// A size, where the fault has one: below 100.
    pub(crate) size: u64,
}

/// How many of a hundred draws are real programs.
const REAL: u64 = 50;

impl Draw {
    /// The draw `number` of `seed`.
    pub(crate) fn of(seed: u64, number: u64) -> Draw {
        let mut random = Random::of(seed, number);
        let random = &mut random;
        let subject = match random.chance(REAL) {
            true => random.one_of(&Subject::REAL),
            false => random.one_of(&Subject::STORMS),
        };
        let engine = random.one_of(&[Engine::Auto, Engine::Breakpoint]);
        let faults: Vec<Fault> = Fault::ALL
            .into_iter()
            .filter(|f| f.suits(subject))
            .collect();
        let fault = random.one_of(&faults);
        let rounds = 1 + random.below(3);
        Draw {
            seed,
            number,
            subject,
            engine,
            fault,
            moment: Moment::draw(random, fault.anchors()),
            rounds,
            faulty: random.below(rounds),
            stays: Duration::from_micros(random.scattered(60_000)),
            lasts: Duration::from_micros(500 + random.scattered(80_000)),
            outlasts: random.chance(25),
            size: random.below(100),
        }
    }

    /// Whether docs/ptrace.md says that the target may die of a SIGKILL of leaktap's: it runs into
    /// breakpoints all the time, or it is told of each signal, and one may be lost.
    pub(crate) fn may_die_by_kill(&self) -> bool {
        self.engine == Engine::Breakpoint || self.subject == Subject::Signals
    }

    /// The signal that leaktap may die of, since it comes before leaktap is ready for it, or is the
    /// second one.
    pub(crate) fn sent(&self) -> Option<Signal> {
        self.fault
            .signal()
            .filter(|_| self.moment.anchor != Anchor::Attached)
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Auto => "auto",
            Engine::Breakpoint => "breakpoint",
        })
    }
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Draw {
            seed,
            number,
            subject,
            engine,
            fault,
            moment,
            rounds,
            ..
        } = self;
        write!(
            f,
            "seed {seed} draw {number}: {subject}, {engine}, {fault}, {moment}, "
        )?;
        write!(
            f,
            "round {} of {rounds}, stays {:?}",
            self.faulty + 1,
            self.stays
        )?;
        match self.outlasts {
            true => write!(f, ", outlasts"),
            false => write!(f, ", lasts {:?}", self.lasts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_of_five_draws_or_more_are_real_programs_and_each_fault_comes() {
        let draws: Vec<Draw> = (0..2000).map(|number| Draw::of(3, number)).collect();
        let real = draws.iter().filter(|draw| !draw.subject.is_storm()).count();
        assert!(real >= 800, "{real}");
        for fault in Fault::ALL {
            assert!(draws.iter().any(|draw| draw.fault == fault), "{fault}");
        }
    }

    #[test]
    fn a_draw_is_described_the_same_each_time() {
        assert_eq!(Draw::of(9, 4).to_string(), Draw::of(9, 4).to_string());
    }
}
