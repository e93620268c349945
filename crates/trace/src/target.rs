//! The traced process: its probes, its books, and the facts of the trace.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use leaktap_agent::layout::{ALL_SEEN, FREE_STACKS, PAIRS};
use leaktap_image::{Error as ImageError, Image, Symbolizer};
use leaktap_ledger::FamilyId;
use leaktap_memory::Addr;
use leaktap_probe::{Files, Held, Modules, Pool, Probepoint, Process, Refusal, Trap};
use leaktap_report::Mode;
use leaktap_tracee::{AllStopped, Attached, Died, Memory, Registers, Signal, Stopped, Tid, Tracer};

use crate::books::{Books, live_blocks, live_bytes};
use crate::children::Children;
use crate::common::Common;
use crate::error::{Error, cause};
use crate::guard;
use crate::guests;
use crate::observer::Now;
use crate::program::{self, Program};
use crate::timeline::{Live, TimeLine};

mod mappings;
mod notes;
mod states;

pub(crate) use states::{has_ended, is_runnable, sleeps_uninterruptibly};

/// How often the agent's sums are looked at.
const SAMPLING: Duration = Duration::from_millis(45);

/// How functions are probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// By detours, and by breakpoints where there can be none.
    Auto,
    /// By breakpoints alone.
    Breakpoint,
}

impl Engine {
    /// What the report calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Engine::Auto => "auto",
            Engine::Breakpoint => "breakpoint",
        }
    }
}

/// How the target ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It called exit(2) with this.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

/// How long threads of the target were stopped, other than to count.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Halts {
    /// To attach, in all: once, or, with an agent, twice.
    pub(crate) attach: Duration,
    /// To detach, in all: all threads, and then one that unmaps the agent's memory.
    pub(crate) detach: Duration,
    /// The longest.
    pub(crate) longest: Duration,
}

impl Halts {
    /// All threads were stopped for so long, to attach.
    pub(crate) fn add_attach(&mut self, halt: Duration) {
        self.attach += halt;
        self.longest = self.longest.max(halt);
    }

    /// Some were stopped for so long, to detach.
    pub(crate) fn add_detach(&mut self, halt: Duration) {
        self.detach += halt;
        self.longest = self.longest.max(halt);
    }
}

/// How a target is to be watched.
#[derive(Clone, Debug)]
pub struct How {
    /// How it comes under trace.
    pub mode: Mode,
    /// Most frames of a stack.
    pub depth: usize,
    /// Between two moments of the time line.
    pub interval: Duration,
    /// Whether code may be injected.
    pub engine: Engine,
    /// Whether what would need an int3 is left unwatched.
    pub detours_only: bool,
    /// Allocators beside those that leaktap knows.
    pub pools: Vec<Pool>,
}

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

/// Programs that were replaced by others, in the one process.
#[derive(Clone, Debug, Default)]
struct Execs {
    times: u64,
    /// Blocks that ended with them.
    blocks: u64,
    /// The first one.
    program: PathBuf,
}

impl Execs {
    fn add(&mut self, program: &Path, blocks: u64) {
        if self.times == 0 {
            self.program = program.to_path_buf();
        }
        self.times += 1;
        self.blocks = self.blocks.saturating_add(blocks);
    }

    /// One line, however many there were.
    fn note(&self) -> Option<String> {
        let (program, blocks) = (self.program.display(), self.blocks);
        match self.times {
            0 => None,
            1 => Some(format!(
                "{program} called exec: its {blocks} live blocks ended with its memory"
            )),
            times => Some(format!(
                "{program}, and what it became, called exec {times} times: their {blocks} live \
                 blocks ended with their memory"
            )),
        }
    }
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

    /// Makes memory for the agent, if that was asked for and the modules of the process are known:
    /// at a launch, when the dynamic linker has mapped them all.
    pub(crate) fn map_agent(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) -> bool {
        self.how.engine == Engine::Auto
            && !self.books.is_injected()
            && self.has_counted_nothing()
            && self.process.is_linked()
            && self.process.map_agent(tracer, stopped)
    }

    /// Breakpoints have to do, for one of these reasons if there is no other: threads are asleep,
    /// another process shares the memory, or the dynamic linker is at work.
    pub(crate) fn refuse(&mut self, attached: &Attached) {
        let refusal = if !attached.late.is_empty() {
            Refusal::ThreadAsleep
        } else if !attached.sharers.is_empty() {
            Refusal::MemoryShared
        } else if !self.process.is_linked() {
            Refusal::LinkerAtWork
        } else {
            return;
        };
        if self.how.engine == Engine::Auto {
            self.process.refuse(refusal);
        }
    }

    /// See [`Process::await_link`]. Many system calls may be made until then, and each stops twice:
    /// that is for programs that live on if we are killed.
    pub(crate) fn await_link(&mut self, stopped: &AllStopped<'_>) {
        if self.how.engine == Engine::Auto && !self.ends_with_us {
            self.process.await_link(stopped);
        }
    }

    /// Should leaktap be killed, it is killed, too.
    pub(crate) fn end_with_us(&mut self) {
        self.ends_with_us = true;
    }

    /// The same for a program that has been executed while we attached.
    pub(crate) fn await_first_link(&mut self, attached: &mut Attached) {
        let is_alone = attached.late.is_empty() && attached.sharers.is_empty();
        if is_alone && attached.stopped.len() == 1 {
            self.await_link(&attached.all_stopped());
        }
    }

    /// See [`Process::return_from_link`].
    pub(crate) fn return_from_link(&self, stopped: &Stopped) -> Result<(), Died> {
        let mut registers = stopped.registers()?;
        self.process.return_from_link(&mut registers);
        stopped.set_registers(&registers)
    }

    /// See [`Process::end_linking`].
    pub(crate) fn end_linking(&mut self, stopped: &AllStopped<'_>) {
        self.process.end_linking(stopped);
    }

    /// Arms what is being linked, without awaiting the end of that any longer.
    pub(crate) fn arm_unlinked(&mut self, stopped: &AllStopped<'_>) {
        self.process.end_linking(stopped);
        self.process.arm(stopped);
    }

    /// Whether a program that has just begun can have an agent at once.
    fn is_to_be_injected(&self) -> bool {
        self.how.engine == Engine::Auto && self.process.is_linked()
    }

    /// All of it, at once: while a program is being launched, `stopped` is its only thread. Modules
    /// may have changed. What there will be a detour for never has an int3.
    pub(crate) fn inject(&mut self, common: &mut Common, stopped: &mut Stopped) {
        let mut stopped = AllStopped::only(stopped);
        self.process.look_at_modules(&mut common.files);
        if self.map_agent(&mut common.tracer, &mut stopped) {
            self.fill_agent(&mut common.files);
        }
        if self.process.is_linked() {
            self.process.arm(&stopped);
        }
        self.lead_to_agent(&mut common.tracer, &mut stopped);
        self.read_ahead(&mut common.symbolizer);
    }

    /// Has all be read beside the program for which the report, at its end, would have to be waited
    /// for.
    fn read_ahead(&self, symbolizer: &mut Symbolizer) {
        if self.process.is_linked() {
            let files = self.process.modules().outermost();
            files.for_each(|file| symbolizer.read_ahead(file));
        }
    }

    /// See [`Process::fill_agent`].
    pub(crate) fn fill_agent(&mut self, files: &mut Files) {
        self.process.fill_agent(files);
    }

    /// Replaces breakpoints by detours, where there is an agent.
    pub(crate) fn lead_to_agent(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        if let Some(shared) = self.process.lead_to_agent(tracer, stopped) {
            self.books.share(shared);
        }
        self.look_for_operators();
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

    /// See [`Process::take_linking_out`].
    pub(crate) fn take_linking_out(&mut self, stopped: &AllStopped<'_>) {
        self.process.take_linking_out(stopped);
    }

    /// See [`Process::adopt_remains`].
    pub(crate) fn adopt_remains(&mut self) -> bool {
        self.process.adopt_remains()
    }

    /// See [`Process::may_be_in_agent`].
    pub(crate) fn may_be_in_agent(&self, asleep: Tid) -> bool {
        self.process.may_be_in_agent(asleep)
    }

    /// Whether there is an agent that has been taken out, and room of our own for what it has
    /// counted.
    pub(crate) fn can_bring_home(&mut self) -> bool {
        self.process.has_withdrawn() && self.books.home().is_some()
    }

    /// Takes the agent out, if there is one: see [`Process::withdraw`]. With a target that has
    /// ended, it is gone.
    pub(crate) fn withdraw(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<(), Held> {
        if self.exit.is_some() {
            return Ok(());
        }
        self.process.withdraw(tracer, stopped)
    }

    /// See [`Process::open_exits`].
    pub(crate) fn open_exits(&mut self, open: bool, stopped: &AllStopped<'_>) {
        self.process.open_exits(open, stopped);
    }

    /// See [`Process::leave_for_signal`].
    pub(crate) fn leave_for_signal(&mut self, common: &mut Common, stopped: &mut Stopped) {
        // It may wait in the agent for that.
        self.look_for_changes(&mut common.files);
        self.process.leave_for_signal(&mut common.tracer, stopped);
        // It may just have told of something, and goes on without a wait.
        self.look_for_changes(&mut common.files);
    }

    /// See [`Process::share_fs_base`].
    pub(crate) fn share_fs_base(&mut self, tid: Tid) {
        self.process.share_fs_base(tid);
    }

    /// See [`Process::copy_begins`].
    pub(crate) fn copy_begins(&mut self, parent: &Stopped, child: Tid) {
        if let Ok(registers) = parent.registers() {
            self.process.copy_begins(&registers, child);
        }
    }

    /// See [`Process::unmap_agent`].
    pub(crate) fn unmap_agent(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> bool {
        let unmapped = self.process.unmap_agent(tracer, stopped);
        if unmapped.is_err() && self.tid().is_filtered() {
            self.note_filtered("the target");
        } else if unmapped.is_err() && self.exit.is_none() && !has_ended(self.tid()) {
            self.notes.push(format!(
                "leaktap's memory stays mapped, unused: no thread could unmap it; the next \
                 `leaktap attach -p {}` does",
                self.tid()
            ));
        }
        unmapped.unwrap_or(true)
    }

    /// Moves some of the books into our own memory; see [`Process::bring_home`].
    pub(crate) fn bring_home(&mut self, at: u64) -> Option<u64> {
        match self.process.bring_home(self.books.home()?, at) {
            Ok(next) => next,
            Err(error) => {
                let lost = format!("the books could not be read to their end: {error}");
                self.notes.push(lost);
                None
            }
        }
    }

    /// Time passes: to be told before each event, and often.
    pub(crate) fn pass_time(&mut self, files: &mut Files) {
        let now = self.books.tick();
        self.look_for_changes(files);
        if now.saturating_sub(self.sampled) >= SAMPLING {
            self.sampled = now;
            self.sample();
            self.books.look();
            self.process.look_for_filters();
            self.process.look_at_sigtrap();
            if self.timeline.is_due(now) {
                let live = self.live();
                self.timeline.note(now, self.tid(), live);
            }
        }
    }

    /// See [`Process::look_for_changes`].
    fn look_for_changes(&mut self, files: &mut Files) {
        self.process.look_for_changes(files, &mut self.books);
    }

    /// A thread begins; it has not run yet.
    pub(crate) fn thread_begins(&mut self, thread: &Stopped) {
        if let Ok(registers) = thread.registers() {
            self.process.thread_begins(thread.tid(), &registers);
        }
    }

    /// See [`Process::trap`].
    pub(crate) fn trap(&mut self, tid: Tid, registers: &mut Registers) -> Trap {
        self.process.trap(tid, registers, &mut self.books)
    }

    /// See [`Process::ask_sigtrap`].
    pub(crate) fn ask_sigtrap(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        self.process.ask_sigtrap(tracer, stopped);
    }

    /// See [`Process::keep_sigtrap`].
    pub(crate) fn keep_sigtrap(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut Stopped,
        at: Addr,
        registers: &Registers,
    ) {
        self.process.keep_sigtrap(tracer, stopped, at, registers);
    }

    /// See [`Process::inherits_mask`].
    pub(crate) fn inherits_mask(&mut self, thread: Tid, parent: Tid) {
        self.process.inherits_mask(thread, parent);
    }

    /// See [`Process::retry`].
    pub(crate) fn retry(&mut self, tid: Tid, registers: &mut Registers) -> Trap {
        self.process.retry(tid, registers)
    }

    /// See [`Process::leave_slot`].
    pub(crate) fn leave_slot(&mut self, tid: Tid, registers: &mut Registers) -> bool {
        self.process.leave_slot(tid, registers, &mut self.books)
    }

    /// See [`Process::modules_changed`].
    pub(crate) fn modules_changed(&mut self, files: &mut Files) {
        self.process.modules_changed(files);
        self.look_for_operators();
    }

    /// See [`Process::thread_gone`].
    pub(crate) fn thread_gone(&mut self, tid: Tid) {
        self.process.thread_gone(tid, &mut self.books);
    }

    /// Puts every byte back in the memory of a child of a fork, which is at its first stop.
    pub(crate) fn clean_copy(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) {
        if let Ok(memory) = Memory::open(stopped.tid()) {
            let disarmed = self.process.disarm_copy(&memory, tracer, stopped);
            if disarmed.is_err() && stopped.tid().is_filtered() {
                self.note_filtered("a forked child");
            }
        }
    }

    /// The process runs another program now, and `stopped` is its only thread.
    pub(crate) fn exec(&mut self, common: &mut Common, stopped: &mut Stopped) {
        if !self.is_replaced {
            self.replaced();
        }
        match self.reopen(common) {
            Ok(()) if self.is_to_be_injected() => self.inject(common, stopped),
            Ok(()) => {
                let stopped = AllStopped::only(stopped);
                self.await_link(&stopped);
                self.process.arm(&stopped);
                self.look_for_operators();
            }
            Err(error) => self
                .notes
                .push(format!("after exec: {error}; nothing was probed")),
        }
    }

    /// Reads the process afresh: it runs another program since it was read.
    pub(crate) fn reopen(&mut self, common: &mut Common) -> Result<(), Error> {
        self.process = open(self.tid(), &self.how, &mut common.files)?;
        self.is_replaced = false;
        common.only_those_of(self.process.modules());
        if self.guard.is_some() {
            self.guard();
        }
        self.describe();
        Ok(())
    }

    /// The memory of the process is gone, and all that was in it.
    pub(crate) fn replaced(&mut self) {
        self.is_replaced = true;
        self.process.gone(&mut self.books);
        let blocks = self.families().map(|family| self.books.totals(family));
        let blocks = blocks.map(|totals| live_blocks(&totals)).sum();
        match books() {
            Ok(books) => {
                let free_stacks = self.books.wants(FREE_STACKS);
                let drains = self.books.leaves_out_later();
                self.books = books;
                if drains {
                    self.books.leave_out_later();
                }
                self.looks_at_frees(free_stacks);
                self.sees_all();
                self.sampled = Duration::ZERO;
                self.timeline = TimeLine::new(self.how.interval);
            }
            Err(error) => self
                .notes
                .push(format!("after exec: {error}; nothing was counted")),
        }
        self.execs.add(&self.program.called, blocks);
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
    }

    /// All threads run again for good, or are gone.
    pub(crate) fn detached(&mut self) {
        self.look_at_mappings();
        self.note_end();
        self.notes.extend(self.execs.note());
        self.duration = self.books.elapsed();
        self.sample();
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
        let totals = self.families().map(|family| self.books.totals(family));
        let most = totals.max_by_key(|totals| totals.allocations);
        most.map_or(Live::default(), |totals| Live {
            bytes: live_bytes(&totals),
            blocks: live_blocks(&totals),
        })
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

    fn has_counted_nothing(&self) -> bool {
        let mut families = self.families();
        families.all(|family| self.books.totals(family).allocations == 0)
    }

    fn sample(&mut self) {
        for family in self.families() {
            self.books.sample(family);
        }
    }

    /// Why nothing could be seen of it, if that is so, and it is not known for sure that it has
    /// nothing to see: after a launch, all of it would have been seen.
    pub(crate) fn missing_sight(&self) -> Option<Error> {
        match self.process.has_none_to_find() {
            true => None,
            false => self.missing_allocator(),
        }
    }

    /// Refuses a process none of whose functions allocate.
    pub(crate) fn require_allocator(self) -> Result<Target, Error> {
        match self.missing_allocator() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    fn missing_allocator(&self) -> Option<Error> {
        if self.process.finds_allocator() {
            return None;
        }
        let (pid, program) = (self.tid(), self.program.called.display().to_string());
        Some(if self.exit.is_some() || self.process.is_linked() {
            let image = self.process.modules().image();
            Error::NoAllocator {
                pid,
                program,
                why: guests::unseen(image).unwrap_or(
                    "none of its modules has one that leaktap knows; a static program needs its \
                     symbol table (not stripped)",
                ),
                is_static: image.is_static(),
            }
        } else {
            Error::Unlinked { pid, program }
        })
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
