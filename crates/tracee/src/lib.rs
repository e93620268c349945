//! ptrace(2) as types.
//!
//! The first stage of the data path: it stops and resumes the threads of another process, reads
//! and writes their registers and memory, and makes system calls in their place. A thread is
//! [`Stopped`] or [`Running`]; each transition consumes one and gives the other, so that a double
//! resume does not compile. A [`Tracer`] waits for what they report.
//!
//! Not for breakpoints (`probe`), nor for what lies in the memory (`image`, `unwind`).
//!
//! ```no_run
//! use leaktap_tracee::{Event, Options, Tid, Tracer};
//!
//! let mut tracer = Tracer::new();
//! let attached = tracer.attach(Tid::new(4242), Options::follow())?;
//! for stopped in attached.stopped {
//!     stopped.resume().ok(); // one that died meanwhile says so to wait()
//! }
//! loop {
//!     match tracer.wait(0) {
//!         Event::Stopped(stopped) => drop(stopped.resume()),
//!         Event::NoChildren => break,
//!         _ => {}
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![deny(unsafe_code)]

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
compile_error!("leaktap knows Linux on x86-64 only");

mod all_stopped;
mod attach;
mod diagnosis;
mod freezer;
mod launch;
mod memory;
mod options;
mod pieces;
mod priority;
mod procfs;
mod reaper;
mod remote;
#[allow(unsafe_code, reason = "an allocator")]
mod reserve;
mod restart;
mod sharers;
mod signal;
mod standby;
mod status;
mod stop;
#[allow(unsafe_code, reason = "the one place for raw system calls")]
mod sys;
mod tid;
mod tracee;
mod tracer;
mod wakeups;

pub use all_stopped::AllStopped;
pub use attach::Attached;
pub use diagnosis::{AttachError, Denied, examine};
pub use launch::{Command, LaunchError};
pub use leaktap_arch::Registers;
pub use memory::{Memory, WriteError};
pub use options::{Options, may_suspend_seccomp};
pub use priority::{raise_priority, restore_priority};
pub use procfs::{is_proc_ours, processes};
pub use remote::{
    CallCode, CallError, RemoteCalls, find_sigreturn, find_syscall, find_syscall_return,
};
pub use reserve::{Reserve, has_run_out, set_aside};
pub use signal::{Signal, SignalInfo};
pub use standby::stand_by;
pub use stop::Stop;
pub use sys::{Area, become_program, raise_file_limit};
pub use tid::{SeccompMode, Tid, Trapping};
pub use tracee::{Died, OptionsError, Running, Stopped};
pub use tracer::{Event, Tracer};
pub use wakeups::{Sleeper, Wakeups};
