//! What a process looks like from outside, before leaktap and after.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use nix::unistd::Pid;

/// Bytes compared at a time.
const CHUNK: usize = 1 << 20;

/// Descriptors, threads and executable mappings of a process.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot {
    descriptors: BTreeMap<String, String>,
    threads: Vec<String>,
    code: Vec<String>,
    all: Vec<String>,
}

/// One line of /proc/PID/maps: proc(5).
struct Mapping {
    start: u64,
    end: u64,
    permissions: String,
    offset: u64,
    name: String,
}

impl Snapshot {
    pub(crate) fn of(pid: Pid) -> Snapshot {
        let maps = maps(pid);
        let shown = |m: &Mapping| {
            format!(
                "{:x}-{:x} {} {:x} {}",
                m.start, m.end, m.permissions, m.offset, m.name
            )
        };
        Snapshot {
            descriptors: descriptors(pid),
            threads: names_in(&format!("/proc/{pid}/task")),
            code: maps
                .iter()
                .filter(|m| m.permissions.contains('x'))
                .map(shown)
                .collect(),
            all: maps.iter().map(shown).collect(),
        }
    }

    /// What is different now, of what the program itself does not change by working; and what a
    /// tracer has left.
    pub(crate) fn changes(&self, pid: Pid) -> Vec<String> {
        let now = Snapshot::of(pid);
        let mut wrong = left_behind(pid);
        if now.descriptors != self.descriptors {
            wrong.push(format!(
                "descriptors were {:?}, are {:?}",
                self.descriptors, now.descriptors
            ));
        }
        if now.threads != self.threads {
            wrong.push(format!(
                "threads were {:?}, are {:?}",
                self.threads, now.threads
            ));
        }
        wrong.extend(difference("executable mapping", &self.code, &now.code));
        wrong
    }

    /// As [`changes`](Snapshot::changes), for a process that has done nothing meanwhile.
    pub(crate) fn changes_of_idle(&self, pid: Pid) -> Vec<String> {
        let mut wrong = self.changes(pid);
        wrong.extend(difference("mapping", &self.all, &Snapshot::of(pid).all));
        wrong
    }
}

fn difference(what: &str, before: &[String], now: &[String]) -> Vec<String> {
    let gone = before
        .iter()
        .filter(|line| !now.contains(line))
        .map(|line| format!("- {what} {line}"));
    let new = now
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {what} {line}"));
    gone.chain(new).collect()
}

/// What a tracer that has detached must not leave: itself, a stopped thread, a mapping, a changed
/// byte of code.
pub(crate) fn left_behind(pid: Pid) -> Vec<String> {
    let mut wrong = Vec::new();
    for task in names_in(&format!("/proc/{pid}/task")) {
        let Ok(status) = fs::read_to_string(format!("/proc/{pid}/task/{task}/status")) else {
            continue; // it has ended
        };
        let field = |name| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .unwrap_or_default()
                .trim()
        };
        if field("TracerPid:") != "0" || field("State:").starts_with(['t', 'T']) {
            wrong.push(format!(
                "thread {task}: state {}, TracerPid {}",
                field("State:"),
                field("TracerPid:")
            ));
        }
    }
    for mapping in maps(pid) {
        if mapping.name.contains("memfd:") {
            wrong.push(format!("mapping {:x} {}", mapping.start, mapping.name));
        }
        if mapping.permissions.contains('x') {
            wrong.extend(patched(pid, &mapping));
        }
    }
    wrong
}

/// The first byte of an executable mapping that is not its file's, or an account of why there is no
/// file.
fn patched(pid: Pid, mapping: &Mapping) -> Option<String> {
    if mapping.name.starts_with('[') {
        return None; // [vdso], [vsyscall]
    }
    if !mapping.name.starts_with('/') {
        return Some(format!(
            "executable memory of no file at {:x}",
            mapping.start
        ));
    }
    let file = File::open(PathBuf::from(format!("/proc/{pid}/root{}", mapping.name)));
    let (Ok(file), Ok(memory)) = (file, File::open(format!("/proc/{pid}/mem"))) else {
        return Some(format!("cannot compare {}", mapping.name));
    };
    let length = file
        .metadata()
        .map_or(0, |data| data.len())
        .saturating_sub(mapping.offset);
    let length = length.min(mapping.end - mapping.start);
    let at = (0..length).step_by(CHUNK).find_map(|from| {
        let size = usize::try_from(length - from).map_or(CHUNK, |rest| rest.min(CHUNK));
        let (mut expected, mut seen) = (vec![0; size], vec![0; size]);
        let read = file.read_exact_at(&mut expected, mapping.offset + from);
        match read.and_then(|()| memory.read_exact_at(&mut seen, mapping.start + from)) {
            Ok(()) => (0..size)
                .find(|&i| expected[i] != seen[i])
                .map(|i| from + i as u64),
            Err(_) => Some(from),
        }
    });
    at.map(|at| {
        format!(
            "{} is changed or unreadable at offset {:#x}",
            mapping.name,
            mapping.offset + at
        )
    })
}

fn maps(pid: Pid) -> Vec<Mapping> {
    let text = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
    text.lines().filter_map(mapping).collect()
}

fn mapping(line: &str) -> Option<Mapping> {
    let mut words = line.split_whitespace();
    let (start, end) = words.next()?.split_once('-')?;
    let permissions = words.next()?.to_owned();
    let number = |text| u64::from_str_radix(text, 16).ok();
    let offset = number(words.next()?)?;
    let name = words.skip(2).collect::<Vec<_>>().join(" ");
    Some(Mapping {
        start: number(start)?,
        end: number(end)?,
        permissions,
        offset,
        name,
    })
}

fn descriptors(pid: Pid) -> BTreeMap<String, String> {
    let directory = format!("/proc/{pid}/fd");
    let target = |name: String| {
        let link = fs::read_link(format!("{directory}/{name}")).unwrap_or_default();
        (name, link.display().to_string())
    };
    names_in(&directory).into_iter().map(target).collect()
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::Fixture;

    #[test]
    fn a_line_of_maps_is_read() {
        let mapping = mapping("7f00-7fff r-xp 00001000 fe:00 123   /a b/lib.so (deleted)")
            .expect("a mapping");
        assert_eq!(
            (mapping.start, mapping.end, mapping.offset),
            (0x7f00, 0x7fff, 0x1000)
        );
        assert_eq!(
            (mapping.permissions.as_str(), mapping.name.as_str()),
            ("r-xp", "/a b/lib.so (deleted)")
        );
    }

    #[test]
    fn a_process_that_nobody_touched_is_clean() {
        let target = Fixture::new("allocators.c").start();
        let before = Snapshot::of(target.pid());
        assert!(!before.code.is_empty());
        assert_eq!(before.changes_of_idle(target.pid()), Vec::<String>::new());
    }

    #[test]
    fn a_patched_byte_is_found() {
        let target = Fixture::new("allocators.c").start();
        let libc = maps(target.pid())
            .into_iter()
            .find(|m| m.name.contains("libc") && m.permissions.contains('x'));
        let libc = libc.expect("libc's code");
        let memory = File::options()
            .write(true)
            .open(format!("/proc/{}/mem", target.pid()))
            .expect("memory");
        memory.write_all_at(&[0xcc], libc.end - 1).expect("written");
        let wrong = left_behind(target.pid());
        assert_eq!(wrong.len(), 1, "{wrong:?}");
        assert!(wrong[0].contains("libc"), "{wrong:?}");
    }
}
