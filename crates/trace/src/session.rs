//! From attach or launch to the end of the trace: reads as the data path.

use std::collections::BTreeSet;
use std::io;
use std::time::{Duration, Instant};

use leaktap_probe::{Process, Remains};
use leaktap_report::Mode;
use leaktap_tracee::{
    AttachError, Attached, Command, Options, Running, Stop, Stopped, Tid, Tracer, Wakeups,
};

use crate::error::Error;
use crate::observer::Observer;
use crate::orders::{OnSignal, Orders};
use crate::patience::patiently;
use crate::target::{self, Engine, How, Target};
use crate::tracing::Tracing;

/// Longest time until a deadline, or a signal that came at the wrong moment, is noticed.
const WAKE_UP: Duration = Duration::from_millis(20);

/// Longest time that threads which sleep uninterruptibly, or the dynamic linker, are waited for,
/// before breakpoints have to do.
const UNREST: Duration = Duration::from_secs(2);

/// How long a process that is not at rest runs before it is looked at again. It is not traced then,
/// so there is no event to wait for; and with
/// less, a linker at work would not get on, and timeouts of the process would start anew with each
/// stop, and never end.
const PAUSE: Duration = Duration::from_millis(1);

/// Longest time that the process which cleans up after a killed leaktap is waited for.
const GUARD_AT_WORK: Duration = Duration::from_millis(500);

/// What stops may take of the time of a process that has not asked for it, in percent.
const OVERHEAD: u8 = 10;

/// How a trace is made.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Let the target go after this long.
    pub duration: Option<Duration>,
    /// How the target is watched.
    pub how: How,
    /// Let the target go when stops take more percent of its time. If it is not said: more than
    /// 10, of a process that is attached to under [`Engine::Auto`]; else stops take what they take.
    pub max_overhead: Option<u8>,
    /// Whether whole stacks of frees are kept.
    pub free_stacks: bool,
}

impl Settings {
    /// The most that stops may take of the target's time, in percent. Who launches a program, or
    /// asks for breakpoints, wants to know all, and
    /// has waited for that; a process that others use must not be slowed down unasked.
    fn most_overhead(&self, on_signal: OnSignal) -> Option<u8> {
        let is_guest = on_signal == OnSignal::Detach && self.how.engine == Engine::Auto;
        self.max_overhead.or(is_guest.then_some(OVERHEAD))
    }
}

/// Traces the live process `pid` until its end, a signal to leaktap, or the time set.
///
/// # Errors
/// [`Error`]: nothing is traced then, and nothing is left in it.
pub fn attach(pid: Tid, settings: &Settings, observer: &mut dyn Observer) -> Result<Target, Error> {
    let wakeups = wakeups(Ok)?;
    let mut tracer = Tracer::new();
    let held = match patiently(|| hold(&mut tracer, pid, settings)) {
        // It is quicker than we are.
        Err(Error::Replaced { .. }) => hold_first(&mut tracer, pid, settings),
        held => held,
    };
    let (mut target, mut attached, begun) = held?;
    if !leaktap_tracee::raise_priority() {
        target.note_if_busy();
    }
    target.looks_at_frees(settings.free_stacks);
    let mut stopped: Vec<_> = attached.stopped.iter_mut().collect();
    target.restore_slots(&stopped);
    target.ask_sigtrap(&mut tracer, &mut stopped);
    let injects = attached.late.is_empty()
        && attached.sharers.is_empty()
        && target.map_agent(&mut tracer, &mut stopped);
    if !injects {
        if !target.process().is_linking() {
            target.refuse(&attached);
        }
        target.arm();
    }
    let mut tracing = Tracing::start(tracer, &mut target, attached);
    tracing.target.halts.add_attach(begun.elapsed());
    if injects {
        // While the threads run.
        tracing.target.fill_agent();
        let halt = tracing.arm();
        tracing.target.halts.add_attach(halt);
    }
    trace(tracing, settings, wakeups, (OnSignal::Detach, observer));
    target.dismiss_guard();
    Ok(target)
}

/// Reads `pid`, and stops all of its threads. Returns since when they are stopped, too.
fn hold(
    tracer: &mut Tracer,
    pid: Tid,
    settings: &Settings,
) -> Result<(Target, Attached, Instant), Error> {
    leaktap_tracee::examine(pid)?;
    let prepared = prepare_clean(pid, settings).and_then(Target::require_allocator);
    let mut target = match prepared {
        Ok(target) => target,
        Err(error) => return Err(explain(tracer, pid, error)),
    };
    target.guard();
    leaktap_tracee::raise_priority();
    let (attached, begun) = attach_at_rest(tracer, pid, &mut target, settings.how.engine)?;
    let executes = |thread: &Stopped| matches!(thread.stop(), Stop::Exec { .. });
    // Or it has executed a program just before, and nobody told us.
    let is_replaced = attached.stopped.iter().any(executes) || !target.process().is_current();
    if is_replaced {
        if let Err(error) = target.reopen() {
            attached.let_go(tracer);
            return Err(error);
        }
        target.await_first_link(&attached);
    }
    Ok((target, attached, begun))
}

/// As [`hold`], but the threads are stopped before the process is read: for one that does not stay
/// the same for so
/// long.
fn hold_first(
    tracer: &mut Tracer,
    pid: Tid,
    settings: &Settings,
) -> Result<(Target, Attached, Instant), Error> {
    leaktap_tracee::raise_priority();
    let begun = Instant::now();
    let attached = tracer.attach(pid, Options::follow())?;
    match Target::prepare(pid, &settings.how) {
        Ok(mut target) => {
            target.guard();
            target.await_first_link(&attached);
            Ok((target, attached, begun))
        }
        Err(error) => {
            attached.let_go(tracer);
            Err(error)
        }
    }
}

/// Attaches when no thread sleeps uninterruptibly, as for a page from disk, and the dynamic linker
/// is at rest, since an agent can only be
/// injected then; or at last all the same. Returns since when threads are stopped, too.
fn attach_at_rest(
    tracer: &mut Tracer,
    pid: Tid,
    target: &mut Target,
    engine: Engine,
) -> Result<(Attached, Instant), AttachError> {
    let first = Instant::now();
    loop {
        let begun = Instant::now();
        let attached = tracer.attach(pid, Options::follow())?;
        let is_patient =
            engine == Engine::Auto && first.elapsed() < UNREST && !Wakeups::is_pending();
        let is_ready = attached.late.is_empty() && target.process().is_linked();
        if is_ready || !is_patient || !target.process().is_current() {
            return Ok((attached, begun));
        }
        // Those who wake up stop, and wait for us.
        let late = attached.let_go(tracer);
        target.halts.add_attach(begun.elapsed());
        let sleeps = |thread: &Running| target::sleeps_uninterruptibly(thread.tid());
        let is_restless = |process: &Process| !process.is_linked() && process.is_current();
        loop {
            std::thread::sleep(PAUSE);
            let is_at_rest = !late.iter().any(sleeps) && !is_restless(target.process());
            if is_at_rest || first.elapsed() >= UNREST || Wakeups::is_pending() {
                break;
            }
        }
    }
}

/// Prepares for `pid`. What a leaktap that was killed has left in it is taken out first.
fn prepare_clean(pid: Tid, settings: &Settings) -> Result<Target, Error> {
    let mut target = Target::prepare(pid, &settings.how)?;
    if target.process().has_linking_left() {
        take_linking_out(pid, &mut target)?;
        target = Target::prepare(pid, &settings.how)?;
    }
    if target.process().has_foreign_breakpoints() {
        let begun = Instant::now();
        while target.process().has_foreign_breakpoints() && begun.elapsed() < GUARD_AT_WORK {
            std::thread::yield_now();
        }
        // What was planned may have been for code with those in it.
        target.plan();
    }
    target.look_for_slots();
    match target.process().remains() {
        Remains::None => return Ok(target),
        Remains::Unknown => return Err(Error::Remains { pid }),
        Remains::Known => {}
    }
    target.guard();
    let mut tracer = Tracer::new();
    let attached = tracer.attach(pid, Options::follow())?;
    if !target.adopt_remains() {
        attached.let_go(&mut tracer);
        return Err(Error::Remains { pid });
    }
    Tracing::start(tracer, &mut target, attached).detach();
    target.dismiss_guard();
    let mut clean = Target::prepare(pid, &settings.how)?;
    clean.note_remains();
    clean.look_for_slots();
    Ok(clean)
}

/// Takes out what has awaited the end of the target's linking, for a leaktap that was killed.
fn take_linking_out(pid: Tid, target: &mut Target) -> Result<(), Error> {
    let mut tracer = Tracer::new();
    let mut attached = tracer.attach(pid, Options::follow())?;
    if target.process().is_current() {
        let stopped: Vec<_> = attached.stopped.iter_mut().collect();
        target.take_linking_out(&stopped);
    }
    attached.let_go(&mut tracer);
    Ok(())
}

/// Launches a program and traces it until its end.
///
/// # Errors
/// [`Error`].
pub fn run(
    command: &Command,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Target, Error> {
    let wakeups = wakeups(Wakeups::of_job)?;
    let mut tracer = Tracer::new();
    leaktap_tracee::raise_priority();
    let mut stopped = tracer.launch(command, Options::follow().kill_on_exit())?;
    let mut target = Target::prepare(stopped.tid(), &settings.how)?;
    target.end_with_us();
    target.sees_all();
    target.looks_at_frees(settings.free_stacks);
    target.ask_sigtrap(&mut tracer, &mut [&mut stopped]);
    target.arm();
    target.inject(&mut tracer, &mut stopped);
    let attached = Attached {
        stopped: vec![stopped],
        late: Vec::new(),
        sharers: BTreeSet::new(),
    };
    let tracing = Tracing::start(tracer, &mut target, attached);
    trace(tracing, settings, wakeups, (OnSignal::PassOn, observer));
    target.require_sight()
}

/// Reads the process, and attaches for a moment, as `attach` does: nothing else tells all that may
/// forbid it.
///
/// # Errors
/// [`Error`].
pub fn examine(pid: Tid) -> Result<Target, Error> {
    patiently(|| attachable(pid))
}

fn attachable(pid: Tid) -> Result<Target, Error> {
    leaktap_tracee::examine(pid)?;
    let mut tracer = Tracer::new();
    let how = How {
        mode: Mode::Attach,
        depth: 1,
        engine: Engine::Auto,
        detours_only: false,
        pools: Vec::new(),
    };
    let mut target = match Target::prepare(pid, &how) {
        Ok(target) => target,
        // Whatever forbids to attach says it better.
        Err(error) => {
            tracer.attach(pid, Options::follow())?.let_go(&mut tracer);
            return Err(error);
        }
    };
    let process = target.process();
    if !process.finds_allocator() && !process.is_linked() {
        let program = target.program.called.display().to_string();
        return Err(Error::Unlinked { pid, program });
    }
    let (attached, _) = attach_at_rest(&mut tracer, pid, &mut target, Engine::Auto)?;
    target.refuse(&attached);
    attached.let_go(&mut tracer);
    Ok(target)
}

/// Why `pid` could not even be read: whatever forbids to attach says it better than `error`.
fn explain(tracer: &mut Tracer, pid: Tid, error: Error) -> Error {
    if !error.is_denial() {
        return error;
    }
    match tracer.attach(pid, Options::follow()) {
        Err(refused) => refused.into(),
        Ok(attached) => {
            attached.let_go(tracer);
            error
        }
    }
}

fn trace(
    tracing: Tracing<'_>,
    settings: &Settings,
    wakeups: Wakeups,
    (on_signal, observer): (OnSignal, &mut dyn Observer),
) {
    let until = settings
        .duration
        .and_then(|duration| Instant::now().checked_add(duration));
    let max_overhead = settings.most_overhead(on_signal);
    observer.attached(tracing.target);
    let mut orders = Orders::new(until, &wakeups, on_signal, max_overhead);
    tracing.run(&mut orders, observer);
    // Nobody waits for the report but its reader.
    leaktap_tracee::restore_priority();
    observer.ended();
    // A user who is late asks for what has been done: no reason to lose the report.
    wakeups.end();
}

fn wakeups(adapt: impl FnOnce(Wakeups) -> io::Result<Wakeups>) -> Result<Wakeups, Error> {
    let what = "set a signal handler and a timer";
    let wakeups = Wakeups::install(WAKE_UP).and_then(adapt);
    wakeups.map_err(|source| Error::System { what, source })
}
