//! A trace: from attach or launch, over all that a process does meanwhile, to the report.
//!
//! Third stage of the data path. [`attach`] and [`run`] read as it goes: a [`Target`] has the probes
//! and the books of a process; a session waits for the stops of its threads and hands them on; at
//! the end every byte is put back, and [`Target::report`] gives what is left in the books its names.
//! An [`Observer`] is told of what happens meanwhile. Knows no command line and prints nothing.
#![forbid(unsafe_code)]

mod books;
mod children;
mod detaching;
mod error;
pub mod guard;
mod guests;
mod job;
mod misuse;
mod observer;
mod orders;
mod overhead;
mod patience;
mod program;
mod remedy;
mod result;
mod roots;
mod session;
mod target;
mod tracing;

pub use error::{Error, limit};
pub use guests::unseen;
pub use observer::{Now, Observer};
pub use program::Program;
pub use remedy::lines;
pub use session::{Settings, attach, examine, run};
pub use target::{Engine, Exit, How, Target};
