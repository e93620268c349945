use std::io;
use std::sync::mpsc::{RecvError, channel};
use std::thread::{Builder, JoinHandle};

/// Starts a thread that runs `run`, and returns once it is at work: one that begins when memory has
/// become scarce (RLIMIT_AS) finds none for its signal stack, and aborts.
///
/// # Errors
/// There can be no thread more.
pub fn stand_by(run: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    let (begun, has_begun) = channel();
    let thread = Builder::new().spawn(move || {
        drop(begun);
        run();
    })?;
    let _: Result<(), RecvError> = has_begun.recv(); // nothing comes: it is dropped
    Ok(thread)
}
