//! A trace: from attach or launch, over all that a process does meanwhile, to the report.
//!
//! Third stage of the data path. [`attach()`] and [`run()`] begin a session, which waits for the
//! stops of all threads and hands each to the process that it is of; a [`Target`] has the probes
//! and the books of one; at its end every byte is put back, and what is left in the books gets its
//! names. An [`Observer`] is told of what happens meanwhile. Knows no command line and prints
//! nothing.
#![forbid(unsafe_code)]

mod attach;
mod books;
mod children;
mod common;
mod cost;
mod descendants;
mod detaching;
mod ended;
mod error;
pub mod guard;
mod guests;
mod job;
mod limits;
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
mod settings;
mod stopping;
mod target;
mod timeline;
mod tracing;

pub use attach::examine;
pub use ended::{Ended, Outcome, Sight};
pub use error::{Error, limit};
pub use guests::unseen;
pub use observer::{Now, Observer};
pub use program::Program;
pub use remedy::lines;
pub use session::{attach, run};
pub use settings::Settings;
pub use target::{Engine, Exit, How, Target};
