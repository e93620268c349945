//! Processes by the names of their programs.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use leaktap_report::printable;
use leaktap_tracee::Tid;

use crate::cli::{Process, Whom};
use crate::error::Error;

/// Most processes, and characters of a command line, that an error lists.
const MOST_LISTED: usize = 8;
const MOST_SHOWN: usize = 60;

/// Longest name that the kernel keeps (`TASK_COMM_LEN` of prctl(2), without the zero at its end).
const LONGEST_NAME: usize = 15;

/// The processes that the user means, each once; none if none was asked for.
///
/// # Errors
/// [`Error::NoneNamed`] and [`Error::ManyNamed`].
pub(crate) fn processes(whom: &Whom) -> Result<Vec<Tid>, Error> {
    match &whom.process {
        Some(Process::Name(name)) => Ok(vec![the_only(name)?]),
        Some(Process::Pid(pid)) => Ok(vec![Tid::new(*pid)]),
        None => {
            let mut seen = HashSet::new();
            let once = whom.pid.iter().filter(|pid| seen.insert(**pid));
            Ok(once.map(|pid| Tid::new(*pid)).collect())
        }
    }
}

/// The process called `name`, if there is only one.
fn the_only(name: &OsStr) -> Result<Tid, Error> {
    let found = all_named(name);
    match found.as_slice() {
        [(pid, _)] => Ok(*pid),
        [] => Err(Error::NoneNamed {
            name: name.to_owned(),
        }),
        several => Err(Error::ManyNamed {
            name: name.to_owned(),
            count: several.len(),
            list: list(several),
        }),
    }
}

/// Processes called `name`, with their command lines, in the order of their ids. Neither leaktap
/// itself nor what cannot be attached: zombies and kernel threads.
fn all_named(name: &OsStr) -> Vec<(Tid, Vec<u8>)> {
    let own = std::process::id().cast_signed();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let mut ids: Vec<i32> = ids.filter(|pid| *pid != own).collect();
    ids.sort_unstable();
    let called = ids.into_iter().filter_map(|pid| {
        let command = command_if_named(pid, name)?;
        Some((Tid::new(pid), command))
    });
    called.collect()
}

/// The command line of `pid` if it is called `name`: by its executable, its first argument, or what
/// it calls itself.
fn command_if_named(pid: i32, name: &OsStr) -> Option<Vec<u8>> {
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let program = fs::read_link(format!("/proc/{pid}/exe")).ok();
    if command.is_empty() && program.is_none() {
        return None;
    }
    let first = command.split(|byte| *byte == 0).next();
    let first = first.map(|first| Path::new(OsStr::from_bytes(first)));
    let has_name = |path: &Path| path.file_name() == Some(name);
    let is_named = program.as_deref().is_some_and(has_name)
        || first.is_some_and(has_name)
        || fs::read(format!("/proc/{pid}/comm")).is_ok_and(|comm| is_comm(&comm, name));
    is_named.then_some(command)
}

fn is_comm(comm: &[u8], name: &OsStr) -> bool {
    let name = name.as_bytes();
    comm.trim_ascii_end() == name.get(..LONGEST_NAME).unwrap_or(name)
}

/// `4711 (worker --queue a), 4712 (worker --queue b)`.
fn list(processes: &[(Tid, Vec<u8>)]) -> String {
    let shown = processes.iter().take(MOST_LISTED).map(|(pid, command)| {
        let words = String::from_utf8_lossy(command).replace('\0', " ");
        let words = printable(words.trim_end());
        let mut text: String = words.chars().take(MOST_SHOWN).collect();
        if text.len() < words.len() {
            text.push('…');
        }
        format!("{pid} ({text})")
    });
    let mut shown: Vec<_> = shown.collect();
    if let Some(more @ 1..) = processes.len().checked_sub(MOST_LISTED) {
        shown.push(format!("{more} more"));
    }
    shown.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_cuts_names() {
        let is = |comm: &str, name: &str| is_comm(comm.as_bytes(), name.as_ref());
        assert!(is("worker\n", "worker"));
        assert!(is("a-very-long-nam\n", "a-very-long-name"));
        assert!(!is("worker\n", "work") && !is("work\n", "worker"));
    }

    #[test]
    fn candidates_are_listed_on_one_line() {
        let of = |n: i32| (Tid::new(n), b"worker\0--queue\0a\nb\0".to_vec());
        let two = list(&[of(1), of(2)]);
        assert_eq!(two.lines().count(), 1, "{two}");
        assert!(two.starts_with("1 (worker --queue a"), "{two}");
        let many: Vec<_> = (0..12).map(of).collect();
        assert!(list(&many).ends_with(", 4 more"), "{}", list(&many));
    }
}
