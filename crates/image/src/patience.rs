//! Files of others, which may be on a file system that does not answer: one of FUSE whose server
//! hangs, one of a network that is gone.
//!
//! Whatever touches such a file may wait for ever, where no signal reaches it. So another thread
//! does, and is waited for a second; a target that is stopped meanwhile is so for no longer.

use std::io;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// Longest time that a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

type Job = Box<dyn FnOnce() + Send>;

/// The thread that does what may take long; another one if that has been given up.
static HELPER: Mutex<Option<Sender<Job>>> = Mutex::new(None);

/// What `work` returns, or [`io::ErrorKind::TimedOut`] if that takes too long.
pub(crate) fn within<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    within_time(PATIENCE, work)
}

fn within_time<T: Send + 'static>(
    time: Duration,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let mut helper = HELPER.lock().unwrap_or_else(PoisonError::into_inner);
    let (tell, told) = channel();
    // Nobody listens any more if it took too long.
    let job: Job = Box::new(move || drop(tell.send(work())));
    let jobs = match helper.take() {
        Some(jobs) => jobs,
        None => start()?,
    };
    jobs.send(job).map_err(|_| io::ErrorKind::BrokenPipe)?;
    let done = told.recv_timeout(time);
    if done.is_ok() {
        *helper = Some(jobs);
    }
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

fn start() -> io::Result<Sender<Job>> {
    let (jobs, todo) = channel::<Job>();
    thread::Builder::new().spawn(move || todo.into_iter().for_each(|job| job()))?;
    Ok(jobs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_answer_is_given_up_and_others_are_not() {
        assert_eq!(within(|| Ok(7)).unwrap(), 7);
        let (answer, never) = channel::<()>();
        let hangs = move || never.recv().map_err(io::Error::other);
        let error = within_time(Duration::from_millis(5), hangs).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        // By another thread.
        assert_eq!(within(|| Ok(8)).unwrap(), 8);
        drop(answer);
        let fails = || Err::<(), _>(io::ErrorKind::NotFound.into());
        assert_eq!(within(fails).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
