//! What the report has to say of the trace itself: why it ended, and what was not seen.

use leaktap_probe::{Departure, Held, Kind, Probepoint, Remains};
use leaktap_report::count;
use leaktap_tracee::{AllStopped, Tid};
use procfs::{CpuInfo, Current, LoadAverage};

use super::Engine;
use super::Target;
use crate::guests;
use crate::remedy;

impl Target {
    /// Which functions have an int3, or no probe, although detours were wanted, why, and what would
    /// help. None where breakpoints were asked for, or none has.
    pub fn breakpoints_and_remedy(&self) -> Option<String> {
        let is_wanted = self.how.engine == Engine::Auto;
        is_wanted.then(|| remedy::breakpoints(&self.process))?
    }

    /// Stops took so much of its time, in percent, and may not.
    pub(crate) fn was_too_slow(&mut self, (percent, limit): (u8, u8)) {
        let remedy = self
            .breakpoints_and_remedy()
            .map_or_else(String::new, |stops| format!("; it was traced {stops}"));
        self.notes.push(format!(
            "the trace ended early: stops took {percent} % of the target's time, and \
             --max-overhead is {limit}{remedy}"
        ));
    }

    /// Whether calls of malloc were seen, or would have been; of a small program that has no
    /// malloc, those of what allocates in its place.
    pub fn watches_allocator(&self) -> bool {
        let mut points = self.process.probepoints().iter();
        let first = points.find(|point| point.known.allocates());
        first.map_or(self.process.has_none_to_find(), |first| {
            let is_swallowed = self.process.swallowed().any(|id| id == first.function);
            !matches!(first.kind, Kind::None(_)) && !is_swallowed
        })
    }

    /// What was not seen, if calls of malloc were not.
    pub(crate) fn unwatched_allocator(&self) -> Option<String> {
        let mut points = self.process.probepoints().iter();
        let first = points.find(|point| point.known.allocates());
        (!self.watches_allocator()).then(|| match first {
            Some(first) => format!("calls of {} were not all seen", first.known.name),
            None => "no function that allocates was found".to_owned(),
        })
    }

    /// Whether any allocations were seen, or would have been.
    pub fn watches_any(&self) -> bool {
        self.allocating().any(is_watched) || self.process.has_none_to_find()
    }

    /// Whether there are functions that allocate, and none is watched. Not so in a program that has
    /// just been executed, before it has loaded its libraries.
    pub fn is_unwatched(&self) -> bool {
        self.allocating().next().is_some() && !self.allocating().any(is_watched)
    }

    fn allocating(&self) -> impl Iterator<Item = &Probepoint> {
        let points = self.process.probepoints().iter();
        points.filter(|point| point.known.allocates())
    }

    /// All threads are about to run as if nothing had been: but for code that somebody else has
    /// changed.
    pub(super) fn note_overwritten(&mut self) {
        if self.exit.is_none() && self.process.has_overwritten_breakpoints() {
            self.notes.push(
                "the target has written over an int3 of leaktap's: if it puts that back, it dies \
                 of SIGTRAP"
                    .to_owned(),
            );
        }
    }

    /// The trace is over.
    pub(super) fn note_end(&mut self) {
        self.notes.extend(self.process.departure().map(ended_by));
        self.note_unwatched();
        let unseen = guests::unseen(self.process.modules().image());
        self.notes.extend(unseen.map(str::to_owned));
        let unwatched = self.breakpoints_and_remedy();
        let unwatched = unwatched.filter(|_| self.how.detours_only);
        self.notes
            .extend(unwatched.map(|how| format!("traced {how}")));
        for missing in self.process.modules().families().missing() {
            self.notes.push(format!(
                "no module of the target has what --alloc-fn calls {missing}"
            ));
        }
        if self.process.has_none_to_find() {
            self.notes
                .push("the program has no function that allocates".to_owned());
        }
        if self.process.has_been_late() {
            self.notes.push(
                "the target waited for leaktap in vain when it loaded or unloaded a library, or \
                 was about to write to its code: what it did first then may be missing, or have no \
                 names"
                    .to_owned(),
            );
        }
        for function in self.process.swallowed() {
            let name = self.process.functions().display(function);
            self.notes.push(format!(
                "calls of {name} were not all seen: another tool, such as a uprobe of perf or \
                 bpftrace, took leaktap's int3s there"
            ));
        }
        if self.process.has_lost_sigtrap() {
            self.notes.push(
                "a handler for SIGTRAP was lost, or SIGTRAP is no longer ignored: the target set \
                 that by a system call of its own and then blocked SIGTRAP, or has a seccomp filter"
                    .to_owned(),
            );
        }
    }

    /// Allocators beyond those that can be told apart.
    fn note_unwatched(&mut self) {
        const LISTED: usize = 16;
        let found = self.process.unwatched();
        if found.is_empty() {
            return;
        }
        let listed = &found[..found.len().min(LISTED)];
        let more = match found.len() - listed.len() {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        let listed = listed.join("; ");
        self.notes
            .push(format!("allocators that were not watched: {listed}{more}"));
    }

    /// What stays, because the seccomp filter of `who` came after us and cannot be suspended.
    pub(super) fn note_filtered(&mut self, who: &str) {
        let note = format!(
            "{who} has installed a seccomp filter, which only CAP_SYS_ADMIN could suspend: \
             leaktap's memory stays mapped there, unused"
        );
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// The agent could not be taken out in time.
    pub(crate) fn leave_agent(&mut self, why: Held, stopped: &AllStopped<'_>) {
        self.read_last_mappings();
        self.process.abandon_agent(stopped);
        self.notes.push(format!(
            "the injected code stays mapped, unused: {why}; the next `leaktap attach -p {}` takes \
             it out if it can",
            self.tid()
        ));
    }

    /// No thread could be had to unmap what is left of the agent's memory.
    pub(crate) fn leave_rest(&mut self) {
        // Not if it has ended, or runs another program.
        if self.process.remains() != Remains::None {
            self.notes.push(format!(
                "memory of leaktap's stays mapped, unused: no thread stopped in time; the next \
                 `leaktap attach -p {}` takes it out",
                self.tid()
            ));
        }
    }

    /// `pid` was asked for, too.
    pub(crate) fn note_sharer(&mut self, pid: Tid) {
        self.notes.push(format!(
            "process {pid} runs in its memory, and is traced with it"
        ));
    }

    /// leaktap has used the memory that was set aside for this.
    pub(crate) fn note_shortage(&mut self) {
        let ended = "leaktap ran out of memory (ENOMEM; `ulimit -v`?): the trace ended then";
        self.notes.push(ended.to_owned());
    }

    /// Ctrl-C came so often in a row, and the program lives on.
    pub(crate) fn note_interrupts(&mut self, times: u32) {
        self.notes.push(format!(
            "the trace ended when Ctrl-C had come {times} times in a row: the program runs on"
        ));
    }

    /// Threads of the target may wait for leaktap, which may not raise its priority.
    pub(crate) fn note_if_busy(&mut self) {
        let (Ok(load), Ok(processors)) = (LoadAverage::current(), CpuInfo::current()) else {
            return;
        };
        let processors = processors.num_cores();
        if load.one > processors as f32 {
            self.notes.push(format!(
                "stops may have taken long: the machine was busy (load {:.1}, {}), and leaktap may \
                 not raise its priority: it needs CAP_SYS_NICE, or a higher `ulimit -e`",
                load.one,
                count(processors as u64, "processor")
            ));
        }
    }

    /// leaktap was stopped, and its guard has continued it.
    pub(crate) fn note_stopped(&mut self) {
        let ended = "leaktap was stopped (SIGSTOP), which would have held up the target: it went \
                     on, and the trace ended then";
        self.notes.push(ended.to_owned());
    }

    /// There were remains of a leaktap that was killed, or could not take all of it with it: says
    /// what has become of them.
    pub(crate) fn note_remains(&mut self) {
        let remains = "what an earlier leaktap had left in the target";
        self.notes.push(match self.process.remains() {
            Remains::None => format!("{remains} was taken out first"),
            _ => format!("{remains} is still mapped there, unused"),
        });
    }
}

/// Why the trace has ended.
fn ended_by(departure: Departure) -> String {
    match departure {
        Departure::Locks => {
            "the trace ended when the target called mlockall(2), which would have filled all \
             memory reserved for the books: with --engine breakpoint it goes on"
        }
        Departure::Rewrites => {
            "the trace ended when the target made code writable that leaktap had changed, to hook \
             a function: attach again when it has"
        }
    }
    .to_owned()
}

fn is_watched(point: &Probepoint) -> bool {
    !matches!(point.kind, Kind::None(_))
}
