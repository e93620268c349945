//! How far the agent of a process has come: one state at a time.

use super::{Agent, Plan};
use crate::refusal::Refusal;

/// Where the agent is on its way into the process, and out again.
#[derive(Debug, Default)]
pub(crate) enum Injection {
    /// None was asked for yet.
    #[default]
    None,
    /// Which functions can be patched is known.
    Planned(Plan),
    /// In the process, and nothing leads to it yet.
    Mapped(Agent),
    /// As `Mapped`, and to be taken away again.
    Unfit(Agent, Refusal),
    /// Not in the process, and why.
    Refused(Refusal),
    /// Functions lead to it.
    Leading(Agent),
    /// Still in the process's memory, with no thread inside.
    Withdrawn(Agent),
}

impl Injection {
    /// The agent that functions lead to.
    pub(crate) fn agent(&self) -> Option<&Agent> {
        match self {
            Injection::Leading(agent) => Some(agent),
            _ => None,
        }
    }

    /// As [`Injection::agent`], to be changed.
    pub(crate) fn agent_mut(&mut self) -> Option<&mut Agent> {
        match self {
            Injection::Leading(agent) => Some(agent),
            _ => None,
        }
    }

    /// The agent that functions lead to, or have led to.
    pub(crate) fn any_agent(&self) -> Option<&Agent> {
        self.agent().or_else(|| self.withdrawn())
    }

    /// As [`Injection::any_agent`], to be changed.
    pub(crate) fn any_agent_mut(&mut self) -> Option<&mut Agent> {
        match self {
            Injection::Leading(agent) | Injection::Withdrawn(agent) => Some(agent),
            _ => None,
        }
    }

    /// The agent that functions will lead to.
    pub(crate) fn mapped(&self) -> Option<&Agent> {
        match self {
            Injection::Mapped(agent) => Some(agent),
            _ => None,
        }
    }

    /// The agent that no function leads to any longer.
    pub(crate) fn withdrawn(&self) -> Option<&Agent> {
        match self {
            Injection::Withdrawn(agent) => Some(agent),
            _ => None,
        }
    }

    /// Why there is no agent, or will be none.
    pub(crate) fn refusal(&self) -> Option<Refusal> {
        match self {
            Injection::Unfit(_, refusal) | Injection::Refused(refusal) => Some(*refusal),
            _ => None,
        }
    }

    /// Why a function that is found only now has no detour, as far as that is known.
    pub(crate) fn refusal_from_now_on(&self) -> Option<Refusal> {
        match self {
            Injection::Leading(_) => Some(Refusal::BoundLater),
            _ => self.refusal(),
        }
    }

    /// The agent that functions led to until now.
    pub(crate) fn take_agent(&mut self) -> Option<Agent> {
        match std::mem::take(self) {
            Injection::Leading(agent) => Some(agent),
            other => {
                *self = other;
                None
            }
        }
    }

    /// The memory of the process is gone, and any agent with it; why there was none is still true.
    pub(crate) fn forget(&mut self) {
        *self = self.refusal().map_or(Injection::None, Injection::Refused);
    }
}
