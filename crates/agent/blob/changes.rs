//! What the tracer has to see before it is done: told, and awaited for a while. Changes of the
//! dynamic linker's list of modules, and what the tracer has to be gone for.

use core::hint::spin_loop;
use core::sync::atomic::AtomicU32;
use core::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed};

use crate::agent::Agent;
use crate::kernel;
use crate::layout::{ALL, SERVED};

/// How often the tracer is looked for, and how long each time, in nanoseconds: a second in all.
const LOOKS: u32 = 100;
const LOOK: u64 = 10_000_000;

/// Turns of a look where system calls are not allowed: some 3 to 10 ms each.
const SPINS: u32 = 1 << 18;

/// The dynamic linker is about to change its list of modules, or has done so.
#[unsafe(no_mangle)]
extern "C" fn leaktap_changed(fs: u64) {
    // In a forked child there is nobody to tell.
    if let Some(agent) = Agent::present() {
        agent.await_tracer(fs);
    }
}

impl Agent {
    /// Tells the tracer that there is something to be seen, and waits until it has seen that, or is
    /// gone, or takes this thread out, whose fs base is `fs`. After a wait in vain nobody waits any
    /// more, unless the tracer comes back.
    pub(crate) fn await_tracer(self, fs: u64) {
        let (told, live) = (&self.control.told, &self.control.live);
        let change = told.changes.fetch_add(1, AcqRel).wrapping_add(1);
        if self.may_call() {
            kernel::wake(&told.changes);
        }
        for _ in 0..LOOKS {
            let seen = live.seen.load(Acquire);
            let is_seen = seen.wrapping_sub(change).cast_signed() >= 0;
            let leaving = live.leaving.load(Relaxed);
            let is_leaving = leaving != 0 && [fs, ALL].contains(&leaving);
            if is_seen || is_leaving || live.served.load(Relaxed) != SERVED {
                return;
            }
            match self.may_call() {
                true => kernel::wait(&live.seen, seen, LOOK),
                false => spin(&live.seen, seen),
            }
        }
        let _ = live.served.compare_exchange(SERVED, 0, Relaxed, Relaxed); // somebody else has
    }

    fn may_call(self) -> bool {
        self.control.live.kernel.load(Relaxed) == 1
    }
}

/// Waits without a system call while `word` is `value`, for a while.
fn spin(word: &AtomicU32, value: u32) {
    for _ in 0..SPINS {
        if word.load(Relaxed) != value {
            return;
        }
        spin_loop();
    }
}
