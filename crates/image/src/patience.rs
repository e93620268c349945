//! Files of others, which may be on a file system that does not answer: one of FUSE whose server
//! hangs, one of a network that is gone.
//!
//! Whatever touches such a file may wait for ever, where no signal reaches it. So another thread
//! does, and is waited for a second; a target that is stopped meanwhile is so for no longer.

use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;
use std::{fs, io};

use nix::unistd::{Pid, gettid};

/// Longest time that a file system may take to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// How often the thread is waited for that does not wait itself, but gets no processor.
const ROUNDS: u32 = 10;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does what may take long.
struct Helper {
    jobs: Sender<Job>,
    tid: Pid,
}

/// There is another one if that has been given up.
static HELPER: Mutex<Option<Helper>> = Mutex::new(None);

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
    let at_work = match helper.take() {
        Some(helper) => helper,
        None => start()?,
    };
    let sent = at_work.jobs.send(job);
    sent.map_err(|_| io::ErrorKind::BrokenPipe)?;
    let mut done = told.recv_timeout(time);
    for _ in 1..ROUNDS {
        if done.is_ok() || !is_runnable(at_work.tid) {
            break;
        }
        done = told.recv_timeout(time);
    }
    if done.is_ok() {
        *helper = Some(at_work);
    }
    done.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Whether a thread of ours could run, so waits for no file system: state R of proc_pid_stat(5).
fn is_runnable(tid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/self/task/{tid}/stat"));
    stat.is_ok_and(|stat| {
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('R'))
    })
}

/// Once it is at work: one that begins when memory has become scarce finds none for its signal
/// stack, and aborts.
fn start() -> io::Result<Helper> {
    let (jobs, todo) = channel::<Job>();
    let (tell, told) = channel();
    thread::Builder::new().spawn(move || {
        let _ = tell.send(gettid()); // it is waited for
        todo.into_iter().for_each(|job| job());
    })?;
    let tid = told.recv().map_err(io::Error::other)?;
    Ok(Helper { jobs, tid })
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
        let begun = std::time::Instant::now();
        let busy = move || loop {
            if begun.elapsed() > Duration::from_millis(150) {
                return Ok(());
            }
        };
        assert!(within_time(Duration::from_millis(100), busy).is_ok());
        drop(answer);
        let fails = || Err::<(), _>(io::ErrorKind::NotFound.into());
        assert_eq!(within(fails).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
