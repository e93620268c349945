//! The terminal that standard error is: who else uses it, and how wide it is.

use std::env;
use std::fs::read_link;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;

use leaktap_tracee::Tid;
use nix::libc::dev_t;
use nix::sys::stat::{fstat, makedev, stat};
use nix::unistd::{getpgrp, tcgetpgrp};
use procfs::process::Process as ProcInfo;
use rustix::termios::tcgetwinsize;

/// Columns of a terminal that does not say.
const USUAL_WIDTH: u16 = 80;

/// True if the process `pid` uses our standard error's terminal, too: it has that as its
/// controlling terminal, or among its standard streams. A line that we draw would be in its way.
pub(crate) fn is_used_by(pid: Tid) -> bool {
    let Some(own) = device() else {
        return false;
    };
    let thread = pid.living_thread();
    let controlling = controlling_terminal(thread);
    // Where it is ours, too, it may have another name: /dev/tty, /dev/console.
    let is_controlled = match is_foreground() {
        Some(_) => controlling == controlling_terminal(this_process()),
        None => controlling == Some(own),
    };
    is_controlled || (0..3).any(|stream| device_of(thread, stream) == Some(own))
}

/// Whether leaktap is in the foreground of standard error's terminal, so that Ctrl-C reaches it.
/// None if it has no such terminal, or that is not its controlling terminal.
pub(crate) fn is_foreground() -> Option<bool> {
    let group = tcgetpgrp(io::stderr()).ok()?;
    Some(group == getpgrp())
}

/// Columns of standard error's terminal.
pub(crate) fn width() -> usize {
    columns(&io::stderr()).unwrap_or(USUAL_WIDTH.into())
}

/// Columns of the terminal that `stream` is, if it is one.
pub(crate) fn columns(stream: &(impl AsFd + IsTerminal)) -> Option<usize> {
    if !stream.is_terminal() {
        return None;
    }
    let size = tcgetwinsize(stream);
    let columns = size.map_or(0, |size| size.ws_col);
    Some(if columns == 0 { USUAL_WIDTH } else { columns }.into())
}

/// Whether text is UTF-8 here, by the variables of locale(7): without any it is the locale C.
pub(crate) fn is_utf8() -> bool {
    let variables = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter();
    let mut set = variables.filter_map(|name| env::var(name).ok().filter(|set| !set.is_empty()));
    let locale = set.next().unwrap_or_default().to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// The terminal that standard error is.
fn device() -> Option<dev_t> {
    let is_terminal = io::stderr().is_terminal();
    is_terminal
        .then(|| fstat(io::stderr()).ok())
        .flatten()
        .map(|file| file.st_rdev)
}

/// The device that one of the standard streams of `pid` is, if it is one. No other file is asked
/// for: its file system may not answer.
fn device_of(pid: Tid, stream: u32) -> Option<dev_t> {
    let link = format!("/proc/{pid}/fd/{stream}");
    let is_device = read_link(&link).is_ok_and(|path| path.starts_with("/dev"));
    is_device
        .then(|| stat(link.as_str()).ok())
        .flatten()
        .map(|file| file.st_rdev)
}

/// The controlling terminal of `pid`, if it has one.
fn controlling_terminal(pid: Tid) -> Option<dev_t> {
    let stat = ProcInfo::new(pid.get()).and_then(|info| info.stat()).ok()?;
    let (major, minor) = stat.tty_nr();
    (major != 0).then(|| makedev(major as u64, minor as u64))
}

fn this_process() -> Tid {
    Tid::new(std::process::id().cast_signed())
}
