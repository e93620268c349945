//! What a process looks like from outside: before leaktap, and after.

use std::collections::BTreeSet;
use std::fs;
use std::time::Duration;

use nix::unistd::Pid;

use crate::{processes, wait};

/// What a working program itself changes of all this.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// It makes code.
    pub(crate) jit: bool,
    /// It has executed itself since: addresses differ.
    pub(crate) moves: bool,
    /// Its connections come and go.
    pub(crate) serves: bool,
    /// It loads and unloads libraries.
    pub(crate) loads: bool,
    /// Its limits have been changed.
    pub(crate) limited: bool,
}

/// Addresses that a program may come to reserve by itself meanwhile.
const GROWTH: u64 = 2 << 20; // KiB

/// Longest time for which a thread may block all signals, while it starts another.
const REST: Duration = Duration::from_secs(5);

/// Descriptors, executable mappings, limits, signals and size of a process.
#[derive(Clone, Debug)]
pub(crate) struct Snapshot {
    descriptors: BTreeSet<String>,
    code: Vec<Mapping>,
    limits: String,
    /// Blocked by the first thread, ignored and caught.
    signals: [u64; 3],
    size: u64,
}

/// One line of /proc/PID/maps: proc(5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) start: u64,
    pub(crate) end: u64,
    pub(crate) permissions: String,
    pub(crate) offset: u64,
    /// Empty, a path, or a word in brackets.
    pub(crate) name: String,
}

impl Snapshot {
    /// Of a process before leaktap comes. Its first thread may just be starting another, with all
    /// signals blocked, or open a file: that is waited for.
    pub(crate) fn at_rest(pid: Pid) -> Snapshot {
        let mut now = Snapshot::of(pid);
        wait::until(REST, || {
            let before = std::mem::replace(&mut now, Snapshot::of(pid));
            now.signals[0].count_ones() < 32 && now.descriptors == before.descriptors
        });
        now
    }

    pub(crate) fn of(pid: Pid) -> Snapshot {
        let status = status(pid);
        Snapshot {
            descriptors: descriptors(pid),
            code: mappings(pid).into_iter().filter(Mapping::is_code).collect(),
            limits: fs::read_to_string(format!("/proc/{pid}/limits")).unwrap_or_default(),
            signals: ["SigBlk", "SigIgn", "SigCgt"].map(|name| signals(field(&status, name))),
            size: number(field(&status, "VmSize")),
        }
    }

    /// What is different now, but for `habits`, and what a tracer has left.
    pub(crate) fn changes(&self, pid: Pid, habits: Habits) -> Vec<String> {
        let now = Snapshot::of(pid);
        let mut wrong = left_by_a_tracer(pid);
        let (old, new) = (self.kept(habits), now.kept(habits));
        if !habits.serves && old != new {
            let changed: Vec<_> = old.symmetric_difference(&new).collect();
            wrong.push(format!("descriptors: {changed:?}"));
        }
        if self.signals != now.signals {
            let were = &self.signals;
            wrong.push(format!(
                "blocked, ignored, caught were {were:x?}, are {:x?}",
                now.signals
            ));
        }
        if self.limits != now.limits && !habits.limited {
            wrong.push("limits have changed".to_owned());
        }
        if now.size > self.size + GROWTH {
            wrong.push(format!("{} KiB of addresses were {}", now.size, self.size));
        }
        wrong.extend(self.changed_code(&now, habits));
        wrong
    }

    fn kept(&self, habits: Habits) -> BTreeSet<String> {
        let all = self.descriptors.iter();
        let all = all.filter(|one| !habits.loads || !one.contains(".so"));
        // A program that has executed itself need not have opened them in the same order.
        all.map(|one| match one.split_once(' ') {
            Some((_, what)) if habits.moves => what.to_owned(),
            _ => one.clone(),
        })
        .collect()
    }

    fn changed_code(&self, now: &Snapshot, habits: Habits) -> Vec<String> {
        // It may have been looked at first in the middle of an execve(2).
        let is_kernels = |m: &&Mapping| habits.moves && m.name == "[vdso]";
        let new = now.code.iter().filter(|m| !m.has_file() && !habits.jit);
        let new = new.filter(|m| !is_kernels(m));
        let new = new.filter(|m| !self.code.iter().any(|old| old.is_like(m, habits)));
        let gone = self
            .code
            .iter()
            .filter(|m| m.has_file() && !(habits.loads && m.name.contains(".so")));
        let gone = gone.filter(|m| !now.code.iter().any(|one| one.is_like(m, habits)));
        let new = new.map(|m| format!("new code at {:x}-{:x} {}", m.start, m.end, m.name));
        new.chain(gone.map(|m| format!("no more code of {}", m.name)))
            .collect()
    }
}

impl Mapping {
    pub(crate) fn is_code(&self) -> bool {
        self.permissions.contains('x') && self.name != "[vsyscall]"
    }

    /// True if its bytes are those of a file that can be looked at.
    pub(crate) fn has_file(&self) -> bool {
        self.name.starts_with('/') && !self.name.ends_with(" (deleted)")
    }

    fn is_like(&self, other: &Mapping, habits: Habits) -> bool {
        let same = self.name == other.name && self.permissions == other.permissions;
        let is_there = habits.moves || (self.start == other.start && self.end == other.end);
        same && is_there && self.offset == other.offset
    }
}

/// Stops, tracers, and mappings of leaktap's.
fn left_by_a_tracer(pid: Pid) -> Vec<String> {
    let mut wrong = Vec::new();
    for thread in processes::threads(pid) {
        let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status"));
        let Ok(status) = status else { continue }; // it has ended
        let (state, tracer) = (field(&status, "State"), field(&status, "TracerPid"));
        if tracer != "0" || state.starts_with(['t', 'T']) {
            wrong.push(format!(
                "thread {thread}: state {state}, TracerPid {tracer}"
            ));
        }
    }
    let ours = |m: &Mapping| m.name.contains("memfd:leaktap");
    let left = mappings(pid).into_iter().filter(ours);
    wrong.extend(left.map(|m| format!("mapping {:x}-{:x} {}", m.start, m.end, m.name)));
    wrong
}

/// All mappings of a process.
pub(crate) fn mappings(pid: Pid) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.to_owned();
    let number = |text| u64::from_str_radix(text, 16).ok();
    let offset = number(words.next()?)?;
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
        permissions,
        offset,
        name: words.skip(2).collect::<Vec<_>>().join(" "),
    })
}

/// But for what its dynamic linker has open for a moment: leaktap never opens a library there.
fn descriptors(pid: Pid) -> BTreeSet<String> {
    let folder = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let shown = |entry: fs::DirEntry| {
        let link = fs::read_link(entry.path()).unwrap_or_default();
        format!("{} {}", entry.file_name().display(), link.display())
    };
    let of_linker = |shown: &String| shown.contains(".so.") || shown.ends_with("/ld.so.cache");
    // A JVM reads its limits again and again.
    let of_limits = |shown: &String| shown.contains(" /sys/fs/cgroup/");
    entries
        .map(shown)
        .filter(|shown| !of_linker(shown) && !of_limits(shown))
        .collect()
}

fn status(pid: Pid) -> String {
    fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default()
}

/// KiB of addresses that a process has.
pub(crate) fn size(pid: Pid) -> u64 {
    number(field(&status(pid), "VmSize"))
}

fn field<'a>(status: &'a str, name: &str) -> &'a str {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_default().trim()
}

/// A set of signals, without the two that the C library makes use of when it likes.
fn signals(text: &str) -> u64 {
    u64::from_str_radix(text, 16).unwrap_or(0) & !(3 << 31)
}

fn number(text: &str) -> u64 {
    let digits = text.split(' ').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_maps_is_read() {
        let line = "7f00-7fff r-xp 00001000 fe:00 123   /a b/lib.so";
        let mapping = mapping(line).expect("a mapping");
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset),
            (0x7f00, 0x7fff, 0x1000)
        );
        assert!(mapping.is_code() && mapping.has_file());
        assert_eq!(mapping.name, "/a b/lib.so");
    }

    #[test]
    fn a_process_that_nobody_touched_is_unchanged() {
        let own = Pid::this();
        let habits = Habits {
            serves: true,
            ..Habits::default()
        }; // other tests open files
        assert_eq!(Snapshot::of(own).changes(own, habits), Vec::<String>::new());
    }
}
