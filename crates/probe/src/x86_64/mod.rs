//! What is of the processor's own: instructions that are moved, replaced by jumps, or looked for.

mod awaiting;
mod branches;
mod callees;
mod jump;
mod padding;
mod relocate;
mod site;

pub(crate) use awaiting::Awaiting;
pub(crate) use branches::{LONGEST_BRANCH, RUN_UP};
pub use branches::{LongBranch, has_branch, long_branches, may_have_branch};
pub(crate) use callees::{Callee, by_symbol, callees, direct_callees, may_leave};
pub use jump::jump;
pub(crate) use jump::jumps_to;
pub use relocate::{Boundary, OutOfLine, Relocated, out_of_line, relocate};
pub(crate) use site::room_of_return;
pub use site::{JUMP_LEN, Site};

use leaktap_agent::layout::Call;
use leaktap_arch::RET;

/// `add rsp, Call::LEN` and `ret`: drops the frame of a call through the agent, and returns.
pub(crate) const WAY_OUT: [u8; 5] = [0x48, 0x83, 0xc4, Call::LEN as u8, RET];

/// Bytes of `call [r11 + 8]`, and of `call [rsp - 8]`, by which the agent calls functions.
pub(crate) const AGENT_CALL_LEN: i64 = 4;

#[cfg(test)]
mod prologue_tests;
