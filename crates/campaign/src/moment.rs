//! When a fault comes.

use std::fmt;
use std::time::Duration;

use crate::random::Random;

/// What the moment of a fault is counted from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    /// Done before leaktap is started.
    Before,
    /// leaktap has been started.
    Started,
    /// The target has a tracer.
    Seized,
    /// leaktap has said that it is attached.
    Attached,
    /// leaktap has been told to detach.
    Detaching,
    /// Done when leaktap has ended.
    After,
}

/// An anchor, and how long after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) anchor: Anchor,
    pub(crate) delay: Duration,
}

impl Anchor {
    /// Longest delay in microseconds: as long as what it begins takes on a slow machine.
    fn scatter(self) -> u64 {
        match self {
            Anchor::Before | Anchor::After => 1,
            Anchor::Started => 80_000,
            Anchor::Seized => 20_000,
            Anchor::Attached => 30_000,
            Anchor::Detaching => 10_000,
        }
    }
}

impl Moment {
    /// One of those that follow `anchors`.
    pub(crate) fn draw(random: &mut Random, anchors: &[Anchor]) -> Moment {
        let anchor = random.one_of(anchors);
        Moment {
            anchor,
            delay: Duration::from_micros(random.scattered(anchor.scatter())),
        }
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.anchor {
            Anchor::Before => write!(f, "before"),
            Anchor::After => write!(f, "after"),
            anchor => write!(f, "{} us after {anchor:?}", self.delay.as_micros()),
        }
    }
}
