//! What the tests of several crates share: programs compiled from source, processes that die at a
//! deadline, and with the test, and random numbers that repeat.
//!
//! Beside the data path: no crate depends on it but for its tests. It knows nothing of leaktap. A
//! failure is a panic, which shows what the compiler or the process has written.

mod compile;
#[allow(
    clippy::print_stderr,
    reason = "what a failed test saw goes to standard error"
)]
mod process;
mod random;

pub use compile::compile;
pub use process::{Finished, LIFETIME, Watched};
pub use random::Random;
