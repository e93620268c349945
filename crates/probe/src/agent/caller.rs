//! Which thread makes system calls for us.

use leaktap_arch::system_calls::RESTART;
use leaktap_tracee::{CallCode, RemoteCalls, Stop, Stopped, Tid, Tracer};

use crate::refusal::Refusal;

/// How many threads are looked at: each takes some 100 µs.
const TRIED: usize = 8;

/// Makes system calls in one of `stopped`: the first that can, but best in one that would get back
/// to where it was should we die.
pub(super) fn with_calls<T>(
    tracer: &mut Tracer,
    stopped: &mut [&mut Stopped],
    code: CallCode,
    make: impl FnOnce(&mut RemoteCalls<'_>, Tid) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    // The first thread has a stack that is known to be its own.
    stopped.sort_unstable_by_key(|thread| (thread.stop() != Stop::Interrupt, thread.tid()));
    // With one alone there is nothing to choose.
    if stopped.len() > 1
        && let Some(best) = best(tracer, stopped, code)
    {
        stopped.swap(0, best);
    }
    for thread in stopped {
        let tid = thread.tid();
        if let Ok(mut calls) = tracer.calls(thread, code) {
            let made = make(&mut calls, tid);
            let _ = calls.finish(); // fails for one that has been killed meanwhile
            return made;
        }
    }
    Err(Refusal::InjectionForbidden)
}

/// One of those that come first which gets back by itself, and to a system call that is made again
/// then, if it is in one.
fn best(tracer: &mut Tracer, stopped: &mut [&mut Stopped], code: CallCode) -> Option<usize> {
    let mut second = None;
    let idle = stopped.iter_mut().take(TRIED);
    // One that stands at a signal would lose that.
    let idle = idle.take_while(|thread| thread.stop() == Stop::Interrupt);
    for (index, thread) in idle.enumerate() {
        let calls = tracer.calls(thread, code);
        if calls.is_ok_and(|mut calls| calls.has_way_back() == Ok(true)) {
            second = second.or(Some(index));
            let registers = thread.registers();
            // The kernel goes on with a call that has been interrupted; only it knows with which.
            let restarts = |number: u64| number.cast_signed() == RESTART;
            if registers.is_ok_and(|now| !now.system_call().is_some_and(restarts)) {
                return Some(index);
            }
        }
    }
    second
}
