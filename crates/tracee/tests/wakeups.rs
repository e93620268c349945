//! Signals and the clock wake a tracer that waits. One test: the handlers are the process' own.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use std::time::Duration;

use common::Target;
use leaktap_tracee::{Event, Signal, Tracer, Wakeups};
use nix::sys::signal::{SigSet, Signal as NixSignal, kill};
use nix::unistd::Pid;

/// `SigCgt` of this thread: what has a handler.
fn handled() -> String {
    common::status(
        leaktap_tracee::Tid::new(nix::unistd::gettid().as_raw()),
        "SigCgt",
    )
}

#[test]
fn a_waiting_tracer_is_woken_and_all_is_put_back() {
    let target = Target::start("blocked", &["poll"]);
    let mut tracer = Tracer::new();
    common::follow(&mut tracer, &target);
    let (handlers, mask) = (handled(), SigSet::thread_get_mask().unwrap());
    for _ in 0..3 {
        let wakeups = Wakeups::install(Duration::from_millis(5)).unwrap();
        // By the clock, again and again.
        for _ in 0..10 {
            assert!(matches!(tracer.wait(0), Event::Interrupted));
        }
        assert_eq!(wakeups.take(), None);
        for signal in [NixSignal::SIGTERM, NixSignal::SIGINT] {
            kill(Pid::this(), signal).unwrap();
            while wakeups.take() != Some(Signal::new(signal as i32)) {
                assert!(matches!(tracer.wait(0), Event::Interrupted));
            }
        }
        // What stops is void when it goes on, and the other way round.
        use NixSignal::{SIGCONT, SIGINT, SIGTSTP};
        for (sent, noted) in [
            ([SIGTSTP, SIGCONT, SIGINT], [SIGINT, SIGCONT]),
            ([SIGCONT, SIGINT, SIGINT], [SIGINT, SIGINT]),
            ([SIGCONT, SIGINT, SIGTSTP], [SIGINT, SIGTSTP]),
        ] {
            for signal in sent {
                nix::sys::signal::raise(signal).unwrap();
            }
            let expected = noted.map(|signal| Some(Signal::new(signal as i32)));
            assert_eq!(noted.map(|_| wakeups.take()), expected, "{sent:?}");
            while wakeups.take().is_some() {}
        }
        drop(wakeups);
        assert_eq!(handled(), handlers);
        assert_eq!(SigSet::thread_get_mask().unwrap(), mask);
    }
    // When the work is done, the first signal still changes nothing, and the next one finds its
    // default.
    let wakeups = Wakeups::install(Duration::from_millis(5)).unwrap();
    wakeups.end();
    assert_ne!(handled(), handlers);
    for signal in [
        NixSignal::SIGTERM,
        NixSignal::SIGINT,
        NixSignal::SIGQUIT,
        NixSignal::SIGHUP,
        NixSignal::SIGUSR1,
        NixSignal::SIGUSR2,
        NixSignal::SIGTSTP,
    ] {
        nix::sys::signal::raise(signal).unwrap();
    }
    assert_eq!(handled(), handlers);
    // No SIGALRM comes late, and the tracer still works.
    target.kill(NixSignal::SIGKILL);
    let (_, end) = common::run_out(&mut tracer, target.tid);
    common::assert_killed(&end);
}
