//! Attaching to a live process: it is read, stopped, probed, and runs on.

use std::time::{Duration, Instant};

use leaktap_probe::{Process, Remains};
use leaktap_report::Mode;
use leaktap_tracee::{
    AttachError, Attached, Options, Running, Stop, Stopped, Tid, Tracer, Wakeups,
};

use crate::common::Common;
use crate::error::Error;
use crate::patience::patiently;
use crate::settings::Settings;
use crate::target::{self, Engine, How, Target};
use crate::tracing::{Traced, Tracing};

/// Longest time that threads which sleep uninterruptibly, or the dynamic linker, are waited for,
/// before breakpoints have to do.
const UNREST: Duration = Duration::from_secs(2);

/// How long a process that is not at rest runs before it is looked at again. It is not traced then,
/// so there is no event to wait for; and with less, a linker at work would not get on, and timeouts
/// of the process would start anew with each stop, and never end.
const PAUSE: Duration = Duration::from_millis(1);

/// Longest time that the process which cleans up after a killed leaktap is waited for.
const GUARD_AT_WORK: Duration = Duration::from_millis(500);

/// Attaches to the live process `pid`, and lets it run. Who `is_patient` tries again while it is in
/// the middle of something: other processes wait meanwhile.
///
/// # Errors
/// [`Error`]: it is not traced then, and nothing is left in it.
pub(crate) fn attach_to(
    common: &mut Common,
    pid: Tid,
    settings: &Settings,
    is_patient: bool,
) -> Result<Traced, Error> {
    let held = match is_patient {
        true => patiently(|| hold(common, pid, settings)),
        false => hold(common, pid, settings),
    };
    let held = match held {
        // It is quicker than we are.
        Err(Error::Replaced { .. }) => hold_first(common, pid, settings),
        held => held,
    };
    let (mut target, mut attached, begun) = held?;
    if !leaktap_tracee::raise_priority() {
        target.note_if_busy();
    }
    target.looks_at_frees(settings.free_stacks);
    let is_alone = attached.late.is_empty() && attached.sharers.is_empty();
    let mut stopped = attached.all_stopped();
    target.restore_slots(&stopped);
    target.ask_sigtrap(&mut common.tracer, &mut stopped);
    let injects = is_alone && target.map_agent(&mut common.tracer, &mut stopped);
    if !injects {
        if !target.process().is_linking() {
            target.refuse(&attached);
        }
        target.arm(&mut common.files, &attached.all_stopped());
    }
    let mut traced = Traced::new(target);
    let mut tracing = Tracing::start(common, &mut traced, attached);
    tracing.traced.target.halts.add_attach(begun.elapsed());
    if injects {
        // While the threads run.
        let files = &mut tracing.common.files;
        tracing.traced.target.fill_agent(files);
        let halt = tracing.arm();
        tracing.traced.target.halts.add_attach(halt);
    }
    Ok(traced)
}

/// Reads `pid`, and stops all of its threads. Returns since when they are stopped, too.
fn hold(
    common: &mut Common,
    pid: Tid,
    settings: &Settings,
) -> Result<(Target, Attached, Instant), Error> {
    leaktap_tracee::examine(pid)?;
    let prepared = prepare_clean(common, pid, settings).and_then(Target::require_allocator);
    let mut target = match prepared {
        Ok(target) => target,
        Err(error) => return Err(explain(&mut common.tracer, pid, error)),
    };
    target.guard();
    leaktap_tracee::raise_priority();
    let (mut attached, begun) =
        attach_at_rest(&mut common.tracer, pid, &mut target, settings.how.engine)?;
    let executes = |thread: &Stopped| matches!(thread.stop(), Stop::Exec { .. });
    // Or it has executed a program just before, and nobody told us.
    let is_replaced = attached.stopped.iter().any(executes) || !target.process().is_current();
    if is_replaced {
        if let Err(error) = target.reopen(common) {
            attached.let_go(&mut common.tracer);
            return Err(error);
        }
        target.await_first_link(&mut attached);
    }
    Ok((target, attached, begun))
}

/// As [`hold`], but the threads are stopped before the process is read: for one that does not stay
/// the same for so long.
fn hold_first(
    common: &mut Common,
    pid: Tid,
    settings: &Settings,
) -> Result<(Target, Attached, Instant), Error> {
    leaktap_tracee::raise_priority();
    let begun = Instant::now();
    let mut attached = common.tracer.attach(pid, Options::follow())?;
    match Target::prepare(pid, &settings.how, &mut common.files) {
        Ok(mut target) => {
            target.guard();
            target.await_first_link(&mut attached);
            Ok((target, attached, begun))
        }
        Err(error) => {
            attached.let_go(&mut common.tracer);
            Err(error)
        }
    }
}

/// Attaches when no thread sleeps uninterruptibly, as for a page from disk, and the dynamic linker
/// is at rest, since an agent can only be injected then; or at last all the same. Returns since
/// when threads are stopped, too.
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
fn prepare_clean(common: &mut Common, pid: Tid, settings: &Settings) -> Result<Target, Error> {
    let mut target = Target::prepare(pid, &settings.how, &mut common.files)?;
    if target.process().has_linking_left() {
        take_linking_out(common, pid, &mut target)?;
        target = Target::prepare(pid, &settings.how, &mut common.files)?;
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
    let attached = common.tracer.attach(pid, Options::follow())?;
    if !target.adopt_remains() {
        attached.let_go(&mut common.tracer);
        return Err(Error::Remains { pid });
    }
    let mut traced = Traced::new(target);
    Tracing::start(common, &mut traced, attached).detach();
    drop(traced);
    let mut clean = Target::prepare(pid, &settings.how, &mut common.files)?;
    clean.note_remains();
    clean.look_for_slots();
    Ok(clean)
}

/// Takes out what has awaited the end of the target's linking, for a leaktap that was killed.
fn take_linking_out(common: &mut Common, pid: Tid, target: &mut Target) -> Result<(), Error> {
    let mut attached = common.tracer.attach(pid, Options::follow())?;
    if target.process().is_current() {
        target.take_linking_out(&attached.all_stopped());
    }
    attached.let_go(&mut common.tracer);
    Ok(())
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
    let mut common = Common::default();
    let how = How {
        mode: Mode::Attach,
        depth: 1,
        interval: Duration::MAX,
        engine: Engine::Auto,
        detours_only: false,
        pools: Vec::new(),
        grades: false,
    };
    let mut target = match Target::prepare(pid, &how, &mut common.files) {
        Ok(target) => target,
        // Whatever forbids to attach says it better.
        Err(error) => {
            let tracer = &mut common.tracer;
            tracer.attach(pid, Options::follow())?.let_go(tracer);
            return Err(error);
        }
    };
    let process = target.process();
    if !process.finds_allocator() && !process.is_linked() {
        let program = target.program.called.display().to_string();
        return Err(Error::Unlinked { pid, program });
    }
    let (attached, _) = attach_at_rest(&mut common.tracer, pid, &mut target, Engine::Auto)?;
    target.refuse(&attached);
    attached.let_go(&mut common.tracer);
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
