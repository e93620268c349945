//! The traced process: its probes, its books, and the facts of the trace.

use std::time::{Duration, SystemTime};

use leaktap_agent::layout::{ALL_SEEN, FREE_STACKS, PAIRS};
use leaktap_image::{Error as ImageError, Image};
use leaktap_ledger::FamilyId;
use leaktap_probe::{Files, Modules, Probepoint, Process};
use leaktap_tracee::{AllStopped, Memory, Signal, Tid};

use crate::books::{Books, live_blocks, live_bytes};
use crate::children::Children;
use crate::error::{Error, cause};
use crate::guard;
use crate::observer::Now;
use crate::program::{self, Program};
use crate::timeline::{Live, TimeLine};

mod agent;
mod exec;
mod how;
mod linking;
mod mappings;
mod notes;
mod reach;
mod sight;
mod states;
mod stops;

use exec::Execs;
pub(crate) use how::Halts;
pub use how::{Engine, Exit, How};
pub(crate) use states::{has_ended, is_runnable, sleeps_uninterruptibly};

/// How often the agent's sums are looked at.
const SAMPLING: Duration = Duration::from_millis(45);

/// A process under trace.
pub struct Target {
    process: Process,
    pub(crate) how: How,
    /// When the agent's sums were last looked at.
    sampled: Duration,
    /// The process that stands by: see [`guard`].
    guard: Option<Tid>,
    /// See [`Target::end_with_us`].
    ends_with_us: bool,
    /// It runs another program now, which has not been read.
    pub(crate) is_replaced: bool,
    /// What it allocated and has not freed.
    pub(crate) books: Books,
    /// Set when it has ended.
    pub exit: Option<Exit>,
    /// The process that has made it, unless the user has named it.
    pub(crate) parent: Option<Tid>,
    /// How many came under trace before it, in the session.
    pub(crate) number: usize,
    /// How its memory changes.
    pub(crate) timeline: TimeLine,
    /// How long it was stopped.
    pub(crate) halts: Halts,
    /// Its executable file.
    pub(crate) program: Program,
    /// Its arguments.
    pub(crate) args: Vec<String>,
    /// Its threads when the trace began.
    pub(crate) threads: usize,
    /// When the trace began.
    pub(crate) started: SystemTime,
    /// How long it took; set at its end.
    pub(crate) duration: Duration,
    /// What the report has to say beside figures.
    pub(crate) notes: Vec<String>,
    /// Its children that were let go.
    pub(crate) children: Children,
    /// How often it executed another program.
    execs: Execs,
}

impl Target {
    /// Reads all that can be read of the process `pid` while it runs.
    pub(crate) fn prepare(pid: Tid, how: &How, files: &mut Files) -> Result<Target, Error> {
        let process = open(pid, how, files)?;
        let mut target = Target {
            process,
            how: how.clone(),
            sampled: Duration::ZERO,
            guard: None,
            ends_with_us: false,
            is_replaced: false,
            books: books()?,
            exit: None,
            parent: None,
            number: 0,
            timeline: TimeLine::new(how.interval),
            halts: Halts::default(),
            program: Program::default(),
            args: Vec::new(),
            threads: 1,
            started: SystemTime::now(),
            duration: Duration::ZERO,
            notes: Vec::new(),
            children: Children::default(),
            execs: Execs::default(),
        };
        target.plan();
        target.describe();
        Ok(target)
    }

    /// See [`Process::plan`]. A program that is being launched has no allocator yet: a plan made
    /// now would find nothing.
    pub(crate) fn plan(&mut self) {
        if self.how.engine == Engine::Auto && self.process.is_linked() {
            self.process.plan();
        }
    }

    /// See [`Process::foresee`].
    pub fn foresee(&mut self) -> Vec<Probepoint> {
        self.process.foresee()
    }

    /// The process's leader.
    pub fn tid(&self) -> Tid {
        self.process.memory().process()
    }

    /// The probes.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Arms all probes.
    pub(crate) fn arm(&mut self, files: &mut Files, stopped: &AllStopped<'_>) {
        self.process.update(files, stopped);
        self.books.start();
        self.look_for_operators();
        self.started = SystemTime::now();
    }

    /// The program has just begun: whatever it frees was allocated under trace.
    pub(crate) fn sees_all(&mut self) {
        self.books.want(ALL_SEEN);
    }

    /// Whether whole stacks of frees are kept.
    pub(crate) fn looks_at_frees(&mut self, with_stacks: bool) {
        self.books.want(if with_stacks { FREE_STACKS } else { 0 });
    }

    /// In C++, blocks may be freed by the wrong function.
    fn look_for_operators(&mut self) {
        // Who allocated a block is known only where all of them are watched.
        if self.process.modules().has_operators() && !self.how.detours_only {
            self.books.want(PAIRS);
        }
    }

    /// Should leaktap be killed, it is killed, too.
    pub(crate) fn end_with_us(&mut self) {
        self.ends_with_us = true;
    }

    /// Has a process stand by that takes the breakpoints out should this one be killed, and
    /// continues this one should it be stopped.
    pub(crate) fn guard(&mut self) {
        match guard::start(self.process.memory()) {
            Ok((guard, journal)) => {
                self.guard = Some(guard);
                self.process.set_journal(Some(journal));
            }
            Err(error) => self.notes.push(format!(
                "no process could stand by to clean up should leaktap be killed: {error}"
            )),
        }
    }

    /// True of the process that stands by.
    pub(crate) fn is_guarded_by(&self, pid: Tid) -> bool {
        self.guard == Some(pid)
    }

    /// The target has been let go: nobody has to stand by any longer.
    pub(crate) fn dismiss_guard(&mut self) {
        self.guard = None;
        self.process.set_journal(None);
    }

    /// See [`Process::look_for_slots`].
    pub(crate) fn look_for_slots(&mut self) {
        self.process.look_for_slots();
    }

    /// See [`Process::restore_slots`].
    pub(crate) fn restore_slots(&mut self, stopped: &AllStopped<'_>) {
        self.process.restore_slots(stopped);
    }

    /// Time passes: to be told before each event, and often.
    pub(crate) fn pass_time(&mut self, files: &mut Files) {
        let now = self.pass_little_time(files);
        if now.saturating_sub(self.sampled) >= SAMPLING {
            self.sampled = now;
            self.sample();
            self.books.look();
            self.process.look_for_filters();
            self.process.look_at_sigtrap();
            if self.timeline.is_due(now) {
                let live = self.live();
                self.timeline.note(now, self.tid(), live);
                self.books.take_series(self.most_used());
            }
        }
    }

    /// The same with all threads stopped, when nothing may be done that can wait. Returns the time.
    pub(crate) fn pass_little_time(&mut self, files: &mut Files) -> Duration {
        let now = self.books.tick();
        self.look_for_changes(files);
        now
    }

    /// See [`Process::look_for_changes`].
    fn look_for_changes(&mut self, files: &mut Files) {
        self.process.look_for_changes(files, &mut self.books);
    }

    /// Takes every probe out.
    pub(crate) fn disarm(&mut self, stopped: &AllStopped<'_>) {
        self.note_overwritten();
        self.read_last_mappings();
        self.process.disarm(&mut self.books, stopped);
    }

    /// Threads that were stopped to detach run again, after so long.
    pub(crate) fn halted(&mut self, halt: Duration) {
        if self.exit.is_none() {
            self.halts.add_detach(halt);
        }
    }

    /// It is looked at while it runs, and goes on.
    pub(crate) fn look_again(&mut self) {
        self.look_at_mappings();
        self.duration = self.books.elapsed();
        self.sample();
        self.end_timeline();
    }

    /// All threads run again for good, or are gone.
    pub(crate) fn detached(&mut self) {
        self.look_at_mappings();
        self.note_end();
        self.notes.extend(self.execs.note());
        self.duration = self.books.elapsed();
        self.sample();
        self.end_timeline();
    }

    /// A report has the present, too; but nothing of a process that may have got this one's number.
    fn end_timeline(&mut self) {
        if self.exit.is_none() {
            let live = self.live();
            self.timeline.end(self.duration, self.tid(), live);
        }
    }

    /// Sends the process a signal.
    pub(crate) fn send(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(self.tid().get());
        if let Ok(signal) = nix::sys::signal::Signal::try_from(signal.number()) {
            let _ = nix::sys::signal::kill(pid, signal); // fails if it has just ended
        }
    }

    /// The last part of what its program is called.
    pub fn program_name(&self) -> String {
        self.program.name()
    }

    /// What lives of what was allocated: of several allocators, in that with the most.
    fn live(&self) -> Live {
        let totals = self.books.totals(self.most_used());
        Live {
            bytes: live_bytes(&totals),
            blocks: live_blocks(&totals),
            agent: self.books.agent_bytes(),
        }
    }

    /// The allocator with the most allocations: the first of these.
    pub(crate) fn most_used(&self) -> FamilyId {
        let all = self.families().rev();
        let most = all.max_by_key(|&family| self.books.totals(family).allocations);
        most.unwrap_or(FamilyId::FIRST)
    }

    /// What a progress line shows.
    pub(crate) fn progress(&self) -> Now {
        let families = self.families().map(|family| self.books.totals(family));
        families.fold(Now::default(), |now, totals| Now {
            live_bytes: now.live_bytes + live_bytes(&totals),
            events: now.events + totals.allocations + totals.frees,
        })
    }

    /// The families that blocks may be of.
    pub(crate) fn families(&self) -> impl DoubleEndedIterator<Item = FamilyId> + use<> {
        FamilyId::all(self.process.modules().families().count())
    }

    fn sample(&mut self) {
        for family in self.families() {
            self.books.sample(family);
        }
    }

    /// It was made as a copy of what runs `program`, and may have been killed before it was asked.
    pub(crate) fn is_copy_of(&mut self, program: Program) {
        if self.program.file.as_os_str().is_empty() {
            self.program = program;
        }
    }

    fn describe(&mut self) {
        let thread = self.tid().living_thread();
        let Ok(program) = Program::of(thread) else {
            return; // it has just been killed: its end is reported
        };
        self.program = program;
        self.args = program::arguments(thread);
        self.threads = self.tid().threads().map_or(1, |threads| threads.len());
    }
}

/// Books without an entry.
fn books() -> Result<Books, Error> {
    let what = "reserve memory for the books";
    Books::new().map_err(|source| Error::System { what, source })
}

/// Reads the process `pid` as it is now.
fn open(pid: Tid, how: &How, files: &mut Files) -> Result<Process, Error> {
    let memory = Memory::open(pid).map_err(|source| Error::OpenMemory { pid, source })?;
    let image = Image::load(pid.get(), &memory, &mut files.opened)?;
    let program = match (image.program(), image.skipped().first()) {
        (None, Some(skipped)) => Err(format!("{}{}", skipped.why, cause(&skipped.why))),
        _ => Ok(()),
    };
    // In the middle of an exec; or the program is for another machine, and its auxv is read wrong.
    let mut skipped = image.skipped().iter();
    let is_foreign = skipped.any(|skipped| matches!(skipped.why, ImageError::Foreign { .. }));
    let is_empty = image.entry().is_null() && !is_foreign;
    let modules = Modules::new(image, how.pools.clone(), &memory, files);
    let mut process = Process::new(memory, modules, how.depth);
    if how.detours_only && how.engine == Engine::Auto {
        process.never_trap();
    }
    if is_empty || !process.is_current() {
        return Err(Error::Replaced { pid });
    }
    program.map_err(|why| Error::Program { pid, why })?;
    Ok(process)
}
