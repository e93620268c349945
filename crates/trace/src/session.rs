//! A session: the processes that are traced, from the first one's beginning to the last one's end.
//!
//! Waits for the events of all threads, and hands each to the process that it is of.

use std::collections::HashSet;
use std::io;
use std::time::{Duration, Instant};

use leaktap_report::Report;
use leaktap_tracee::{AllStopped, Attached, Command, Event, Options, Stopped, Tid, Wakeups};

use crate::attach::attach_to;
use crate::books::Books;
use crate::common::{Common, Newborn};
use crate::descendants::descendants;

use crate::ended::{Ended, Outcome};
use crate::error::Error;
use crate::observer::{Now, Observer};
use crate::orders::{OnSignal, Order, Orders};
use crate::settings::Settings;
use crate::stopping::LOOK;
use crate::target::Target;
use crate::tracing::{Traced, Tracing};

/// Looks at the tracee before the tracer sleeps: a wake-up across cores costs more than these.
const SPINS: u32 = 100;

/// How long threads that could not be stopped are waited for at the end.
const LAST: Duration = Duration::from_secs(1);

/// Longest time until a deadline, or a signal that came at the wrong moment, is noticed.
const WAKE_UP: Duration = Duration::from_millis(20);

/// Traces processes, and their children if that is asked for, until their end, a signal to leaktap,
/// or the time set.
///
/// # Errors
/// [`Error`]: nothing is traced then, and nothing is left in it.
pub fn attach(
    pids: &[Tid],
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let wakeups = wakeups(Ok)?;
    let mut session = Session::new(settings, OnSignal::Detach);
    session.common.is_shared |= pids.len() > 1;
    for pid in pids {
        if let Err(error) = session.attach(*pid, None) {
            session.let_all_go();
            return Err(error);
        }
    }
    session.attach_to_children();
    Ok(session.trace(wakeups, observer))
}

/// Launches a program, and traces it until its end.
///
/// # Errors
/// [`Error`].
pub fn run(
    command: &Command,
    settings: &Settings,
    observer: &mut dyn Observer,
) -> Result<Outcome, Error> {
    let wakeups = wakeups(Wakeups::of_job)?;
    leaktap_tracee::raise_priority();
    let mut session = Session::new(settings, OnSignal::PassOn);
    session.launch(command)?;
    let outcome = session.trace(wakeups, observer);
    outcome.require_sight()
}

fn wakeups(adapt: impl FnOnce(Wakeups) -> io::Result<Wakeups>) -> Result<Wakeups, Error> {
    let what = "set a signal handler and a timer";
    let wakeups = Wakeups::install(WAKE_UP).and_then(adapt);
    wakeups.map_err(|source| Error::System { what, source })
}

/// The processes under trace.
struct Session<'a> {
    settings: &'a Settings,
    on_signal: OnSignal,
    common: Common,
    /// In the order in which they came under trace: the one that was asked for is the first.
    processes: Vec<Traced>,
    /// Those that have ended, or were let go.
    over: Vec<Target>,
    ended: Vec<Ended>,
    /// How many have come under trace.
    begun: usize,
    /// What comes now is left out.
    drains: bool,
}

impl<'a> Session<'a> {
    fn new(settings: &'a Settings, on_signal: OnSignal) -> Session<'a> {
        Session {
            settings,
            on_signal,
            common: Common {
                follows: settings.follow_forks,
                is_shared: settings.follow_forks,
                ..Common::default()
            },
            processes: Vec::new(),
            over: Vec::new(),
            ended: Vec::new(),
            begun: 0,
            drains: false,
        }
    }

    /// Attaches to `pid`, a child of `parent` or asked for, and lets it run.
    fn attach(&mut self, pid: Tid, parent: Option<Tid>) -> Result<(), Error> {
        let mut processes = self.processes.iter_mut();
        if let Some(sharer) = processes.find(|traced| traced.is_of(pid)) {
            sharer.target.note_sharer(pid);
            return Ok(());
        }
        let is_asked_for = parent.is_none();
        let mut traced = attach_to(&mut self.common, pid, self.settings, is_asked_for)?;
        traced.target.parent = parent;
        self.add(traced);
        Ok(())
    }

    /// Attaches to the children that there are, if they are to be traced. Those that come meanwhile
    /// are traced from their first instruction on.
    fn attach_to_children(&mut self) {
        let mut tried = HashSet::new();
        let mut is_done = !self.common.follows;
        while !is_done {
            is_done = true;
            let all = descendants(self.processes.iter().map(|traced| traced.target.tid()));
            for (parent, child) in all {
                if Wakeups::is_pending() {
                    return;
                }
                if !self.common.tracer.has(child) && tried.insert(child) {
                    is_done = false;
                    self.attach_to_child(parent, child);
                }
            }
        }
    }

    fn attach_to_child(&mut self, parent: Tid, child: Tid) {
        let attached = self.attach(child, Some(parent));
        let mut processes = self.processes.iter_mut();
        if let Some(parent) = processes.find(|traced| traced.target.tid() == parent) {
            parent.target.children.add(child, None);
            if attached.is_ok() {
                parent.target.children.is_traced(child);
            }
        }
    }

    /// Launches a program, and lets it run.
    fn launch(&mut self, command: &Command) -> Result<(), Error> {
        let options = Options::follow().kill_on_exit();
        let options = match self.settings.how.grades {
            true => options.exit_events(),
            false => options,
        };
        let stopped = self.common.tracer.launch(command, options)?;
        self.begin(stopped, true, None).map_err(|(_, error)| error)
    }

    /// Probes a process whose only thread has `stopped`, in front of the first instruction of a
    /// program if it `is_new`, and lets it run.
    fn begin(
        &mut self,
        mut stopped: Stopped,
        is_new: bool,
        parent: Option<Tid>,
    ) -> Result<(), (Stopped, Error)> {
        let pid = stopped.tid();
        let prepared = Target::prepare(pid, &self.settings.how, &mut self.common.files);
        let mut target = match prepared {
            Ok(target) => target,
            Err(error) => return Err((stopped, error)),
        };
        target.parent = parent;
        match self.on_signal {
            OnSignal::Detach => target.guard(),
            OnSignal::PassOn => target.end_with_us(),
        }
        let mut all = AllStopped::only(&mut stopped);
        if is_new {
            target.sees_all();
            target.await_link(&all);
        }
        target.looks_at_frees(self.settings.free_stacks);
        target.ask_sigtrap(&mut self.common.tracer, &mut all);
        target.arm(&mut self.common.files, &all);
        target.inject(&mut self.common, &mut stopped);
        let mut traced = Traced::new(target);
        Tracing::start(&mut self.common, &mut traced, Attached::only(stopped));
        self.add(traced);
        Ok(())
    }

    fn add(&mut self, mut traced: Traced) {
        traced.target.number = self.begun;
        traced.limit(self.settings.most_overhead(self.on_signal));
        if self.drains {
            traced.target.books.leave_out_later();
        }
        self.begun += 1;
        self.processes.push(traced);
    }

    /// Traces all until the end. Lets go what runs on.
    fn trace(mut self, wakeups: Wakeups, observer: &mut dyn Observer) -> Outcome {
        let mut orders = Orders::new(self.settings, &wakeups, self.on_signal);
        for traced in &self.processes {
            observer.attached(&traced.target);
        }
        self.run(&mut orders, observer);
        self.let_all_go();
        // Nobody waits for the reports but their readers.
        leaktap_tracee::restore_priority();
        observer.finished();
        // A user who is late asks for what has been done: no reason to lose a report.
        wakeups.end();
        self.report_ended(observer);
        self.ended.sort_by_key(|ended| ended.number);
        Outcome {
            processes: self.ended,
            resolver: self.common.resolver,
        }
    }

    fn run(&mut self, orders: &mut Orders<'_>, observer: &mut dyn Observer) {
        while self.goes_on() {
            match orders.next(&mut self.processes) {
                None => {}
                Some(Order::End) => return,
                Some(Order::Report) => {
                    let reports = self.report_now();
                    if !reports.is_empty() {
                        observer.reported(reports);
                    }
                    orders.have_reported();
                }
                Some(Order::Baseline) => {
                    self.each_book(Books::begin_again);
                    observer.begun_again();
                }
                Some(Order::Drain) => {
                    self.drains = true;
                    self.each_book(Books::leave_out_later);
                }
            }
            let event = self.common.tracer.wait(SPINS);
            self.pass_time();
            if self.processes.iter().any(Traced::is_waited_for) {
                // A thread waits for that, and must not go on before, not even for a signal.
                self.common.tracer.keep(event);
            } else if let Event::NoChildren = event {
                return;
            } else {
                self.on_event(event);
            }
            // Of one that is no longer traced it is not known whether it is stopped.
            let first = self.processes.first();
            if first.is_some_and(|first| first.is_stopped || first.has_left) {
                orders.stop_with_job();
            }
            self.settle(observer);
            observer.sampled(&|| self.progress());
        }
    }

    /// Whether what was asked for is still there, or, if that is asked for, anything.
    fn goes_on(&self) -> bool {
        let mut processes = self.processes.iter();
        processes.any(|traced| self.settings.wait_all || traced.is_asked_for())
    }

    fn pass_time(&mut self) {
        for traced in self.processes.iter_mut().filter(|traced| !traced.has_left) {
            traced.target.pass_time(&mut self.common.files);
            traced.ask_leader(&self.common.tracer);
        }
    }

    /// Hands an event to the process that it is of.
    fn on_event(&mut self, event: Event) {
        let Some(tid) = event.tid() else {
            return;
        };
        let index = self.processes.iter().position(|traced| traced.is_of(tid));
        match (index, event) {
            (Some(index), event) => self.hand_on(index, event),
            (None, Event::Stopped(stopped)) if self.common.leaving.remove(&tid) => {
                let _ = stopped.detach(); // fails if it has been killed
            }
            (None, Event::Stopped(stopped)) => drop(self.common.strays.insert(tid, stopped)),
            (None, _) => {
                self.common.strays.remove(&tid);
                self.common.leaving.remove(&tid);
            }
        }
    }

    fn hand_on(&mut self, index: usize, event: Event) {
        let Some(traced) = self.processes.get_mut(index) else {
            return;
        };
        let has_left = traced.has_left;
        let mut tracing = Tracing {
            common: &mut self.common,
            traced,
        };
        match has_left {
            true => drop(tracing.goes_on(None, event)),
            false => tracing.on_event(event),
        }
    }

    /// What follows from events: children come under trace, others end or have to be let go.
    fn settle(&mut self, observer: &mut dyn Observer) {
        loop {
            self.hand_on_strays();
            for newborn in std::mem::take(&mut self.common.newborn) {
                self.take_in(newborn, observer);
            }
            self.let_ended_go();
            // A process that ends may leave children that nobody has seen yet.
            if self.common.newborn.is_empty() {
                break;
            }
        }
        for process in std::mem::take(&mut self.common.execed) {
            observer.execed(process);
        }
        if self.common.follows {
            self.report_ended(observer);
        }
    }

    /// Those that have ended, or must be let go.
    fn let_ended_go(&mut self) {
        let mut index = 0;
        while let Some(traced) = self.processes.get_mut(index) {
            let must_leave = traced.must_leave();
            let is_launched = self.on_signal == OnSignal::PassOn && traced.is_asked_for();
            if must_leave && is_launched && traced.target.exit.is_none() {
                // It runs on by itself, and what it ends with is of interest.
                self.let_go(index);
            } else if must_leave || traced.is_over() {
                self.let_go(index);
                self.remove(index);
                continue;
            }
            index += 1;
        }
    }

    /// Threads that have stopped while others were waited for, and ends of such.
    fn hand_on_strays(&mut self) {
        for event in std::mem::take(&mut self.common.ends) {
            self.on_event(event);
        }
        let leaving = &self.common.leaving;
        let is_of = |tid: Tid| self.processes.iter().any(|traced| traced.is_of(tid));
        let of = |tid: Tid| leaving.contains(&tid) || is_of(tid);
        let known: Vec<_> = self.common.strays.extract_if(|tid, _| of(*tid)).collect();
        for (_, stopped) in known {
            self.on_event(Event::Stopped(stopped));
        }
        self.let_orphans_go();
    }

    /// Children that nobody will announce any longer: their parents were killed before.
    fn let_orphans_go(&mut self) {
        if !self.common.follows || self.common.strays.is_empty() {
            return;
        }
        let processes = &self.processes;
        // A child of vfork(2) may fork; clone(2) with CLONE_PARENT makes a sibling.
        let is_traced = |parent: Tid| processes.iter().any(|traced| traced.is_of(parent));
        let has_child = |parent: Tid| {
            let mut leaders = processes.iter().map(|traced| traced.target.tid());
            leaders.any(|leader| leader.parent() == Some(parent))
        };
        let has_parent = |parent: Tid| is_traced(parent) || has_child(parent);
        let is_orphan =
            |tid: Tid| tid.process() == Some(tid) && !tid.parent().is_some_and(has_parent);
        for (_, stopped) in self.common.strays.extract_if(|tid, _| is_orphan(*tid)) {
            let _ = stopped.detach(); // fails if it has been killed
        }
    }

    /// A child is traced from here on.
    fn take_in(&mut self, newborn: Newborn, observer: &mut dyn Observer) {
        let Newborn {
            stopped,
            parent,
            is_copy,
        } = newborn;
        let pid = stopped.tid();
        let _ = self.common.tracer.is_born(&stopped); // fails if it has been killed
        match self.begin(stopped, !is_copy, Some(parent)) {
            Ok(()) => {
                observer.forked(parent, pid);
                let traced = self.processes.iter_mut().map(|traced| &mut traced.target);
                let mut all = traced.chain(&mut self.over);
                if let Some(parent) = all.find(|target| target.tid() == parent) {
                    parent.children.is_traced(pid);
                    let copied = is_copy.then(|| parent.program.clone());
                    if let Some((child, copied)) = self.processes.last_mut().zip(copied) {
                        child.target.is_copy_of(copied);
                    }
                }
            }
            // It has been killed, or its program is none that can be traced: it is listed.
            Err((stopped, _)) => drop(stopped.detach()),
        }
    }

    /// Takes all out of a process, which runs on if it has not ended.
    fn let_go(&mut self, index: usize) {
        let Some(traced) = self
            .processes
            .get_mut(index)
            .filter(|traced| !traced.has_left)
        else {
            return;
        };
        traced.has_left = true;
        Tracing {
            common: &mut self.common,
            traced,
        }
        .detach();
        self.common.leaving.extend(traced.unstopped());
        traced.target.dismiss_guard();
    }

    fn remove(&mut self, index: usize) {
        self.over.push(self.processes.remove(index).target);
    }

    fn let_all_go(&mut self) {
        while !self.processes.is_empty() {
            self.let_go(0);
            self.remove(0);
        }
        self.await_leaving();
        let newborn = std::mem::take(&mut self.common.newborn).into_iter();
        let strays = std::mem::take(&mut self.common.strays).into_values();
        for stopped in newborn.map(|newborn| newborn.stopped).chain(strays) {
            let _ = stopped.detach(); // fails if it has been killed
        }
    }

    /// Threads that could not be stopped would be killed with us under `run`: their children, for
    /// which most of them wait, run now.
    fn await_leaving(&mut self) {
        let begun = Instant::now();
        let is_launched = self.on_signal == OnSignal::PassOn;
        while is_launched && !self.common.leaving.is_empty() && begun.elapsed() < LAST {
            match self.common.tracer.poll() {
                Some(Event::NoChildren) => return,
                Some(event) => self.on_event(event),
                None => std::thread::sleep(LOOK),
            }
        }
    }

    fn each_book(&mut self, change: fn(&mut Books)) {
        for traced in self.processes.iter_mut().filter(|traced| !traced.has_left) {
            change(&mut traced.target.books);
        }
    }

    /// What those hold now that are still traced, while they run.
    fn report_now(&mut self) -> Vec<Report> {
        let traced = self.processes.iter_mut().filter(|traced| !traced.has_left);
        let reports = traced.map(|traced| {
            traced.target.look_again();
            traced.target.report(&mut self.common.resolver)
        });
        reports.collect()
    }

    fn report_ended(&mut self, observer: &mut dyn Observer) {
        for target in std::mem::take(&mut self.over) {
            let ended = Ended::new(target, &mut self.common.resolver);
            observer.ended(&ended);
            self.ended.push(ended);
        }
    }

    fn progress(&self) -> Now {
        let all = self.processes.iter().map(|traced| traced.target.progress());
        all.fold(Now::default(), |sum, now| Now {
            live_bytes: sum.live_bytes + now.live_bytes,
            events: sum.events + now.events,
        })
    }
}
