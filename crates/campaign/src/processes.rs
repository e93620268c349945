//! Other processes, by /proc.

use std::fs;
use std::path::Path;

use nix::unistd::Pid;

/// True unless it has ended: a zombie has.
pub(crate) fn is_alive(pid: Pid) -> bool {
    !matches!(state(pid), None | Some('Z' | 'X'))
}

/// Its state, as in /proc/PID/stat.
pub(crate) fn state(pid: Pid) -> Option<char> {
    after_name(pid, 0)?.chars().next()
}

fn parent(pid: Pid) -> Option<i32> {
    after_name(pid, 1)?.parse().ok()
}

/// A field of /proc/PID/stat, counted from behind the name, which may contain anything.
fn after_name(pid: Pid, field: usize) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(field).map(str::to_owned)
}

/// A thread, its state, and where in the kernel it is.
pub(crate) fn described(thread: Pid) -> String {
    let state = state(thread).unwrap_or('-');
    let place = fs::read_to_string(format!("/proc/{thread}/wchan")).unwrap_or_default();
    format!("{thread} {state} {place}")
}

/// Threads of a process.
pub(crate) fn threads(pid: Pid) -> Vec<Pid> {
    numbers(&format!("/proc/{pid}/task"))
}

/// All processes that descend from `ancestor`. Orphans do, if it is their reaper.
pub(crate) fn descendants(ancestor: Pid) -> Vec<Pid> {
    let all: Vec<(Pid, Option<i32>)> = numbers("/proc")
        .into_iter()
        .map(|pid| (pid, parent(pid)))
        .collect();
    let mut found = vec![ancestor];
    let mut next = 0;
    while let Some(&one) = found.get(next) {
        found.extend(
            all.iter()
                .filter(|(_, by)| *by == Some(one.as_raw()))
                .map(|(pid, _)| *pid),
        );
        next += 1;
    }
    found.split_off(1)
}

/// True if it runs the program at `path`.
pub(crate) fn runs(pid: Pid, path: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|program| program == path)
}

/// True if a thread of it has a tracer.
pub(crate) fn is_traced(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|status| !status.contains("TracerPid:\t0\n"))
}

fn numbers(folder: &str) -> Vec<Pid> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let names = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    names.map(Pid::from_raw).collect()
}
