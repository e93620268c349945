//! Allocator functions, where they are in a process, and the breakpoints that see their calls.
//!
//! Second stage of the data path: a thread stops at one of our int3s, [`Process::trap`] says what
//! this means, and a [`Recorder`] is told of blocks and mappings that come and go, with stacks.
//! Knows ptrace stops only as registers and memory; who waits for stops, resumes threads and keeps
//! the books is not here.
#![forbid(unsafe_code)]

mod agent;
mod breakpoints;
mod calls;
mod detour;
mod extents;
mod families;
mod glance;
mod journal;
mod linking;
mod mapping;
mod masks;
mod modules;
mod outcome;
mod probepoint;
mod process;
mod record;
mod refusal;
mod returns;
mod rows_of;
mod slots;
mod stack;
mod tails;
mod unpatched;
#[cfg(target_arch = "x86_64")]
mod x86_64;

/// Another processor has a folder of its own, with the same names in it.
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub use agent::{Held, OWN_STRIPE, Remains, is_agents};
pub use arch::{
    Boundary, JUMP_LEN, LongBranch, OutOfLine, Relocated, Site, has_branch, jump, long_branches,
    may_have_branch, out_of_line, relocate,
};
pub use detour::{Moved, Write, patch};
pub use families::{Families, Family, Member, Pool, User};
pub use journal::Change;
pub use modules::{Files, Modules};
pub use probepoint::{Kind, Probepoint, Reason};
pub use process::{Departure, Process, Trap};
pub use record::{Allocator, Freed, Lost, Mapped, Recorder, Stack};
pub use refusal::Refusal;
pub use stack::MAX_DEPTH;
