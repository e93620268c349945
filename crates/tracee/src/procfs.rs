//! The few facts about a thread that only /proc tells (proc_pid_status(5), proc_pid_stat(5)).

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;

use leaktap_memory::Addr;
use nix::errno::Errno;
use nix::libc;

use crate::{SeccompMode, Tid, sys};

/// The text of /proc/TID/status.
pub(crate) struct Status(String);

impl Status {
    /// None if there is no such thread (any more).
    pub(crate) fn of(tid: Tid) -> Option<Status> {
        contents(&format!("/proc/{tid}/status"), [0; STATUS_LEN])
            .ok()
            // The name of the program may be any bytes.
            .map(|bytes| Status(String::from_utf8_lossy(&bytes).into_owned()))
    }

    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let line = self
            .0
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        Some(line.trim())
    }

    /// The first number of a field.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.field(name)?
            .split_ascii_whitespace()
            .next()?
            .parse()
            .ok()
    }

    /// The last number of a field.
    pub(crate) fn last_number(&self, name: &str) -> Option<i32> {
        let last = self.field(name)?.split_ascii_whitespace().next_back();
        last?.parse().ok()
    }

    /// True of a field that lists `word`.
    pub(crate) fn has_word(&self, name: &str, word: &str) -> bool {
        let words = self.field(name).unwrap_or_default();
        words.split_ascii_whitespace().any(|found| found == word)
    }

    /// A hexadecimal field: a signal or capability set.
    pub(crate) fn bits(&self, name: &str) -> Option<u64> {
        u64::from_str_radix(self.field(name)?, 16).ok()
    }

    /// The thread's seccomp mode.
    pub(crate) fn seccomp(&self) -> Option<SeccompMode> {
        match self.number("Seccomp")? {
            0 => Some(SeccompMode::Disabled),
            1 => Some(SeccompMode::Strict),
            _ => Some(SeccompMode::Filter),
        }
    }

    /// Whether its return addresses are checked against a shadow stack.
    pub(crate) fn has_shadow_stack(&self) -> bool {
        self.has_word("x86_Thread_features", "shstk")
    }

    /// The letter of the thread's state: R, S, D, T, t, Z, X, ...
    pub(crate) fn state(&self) -> char {
        self.field("State")
            .and_then(|state| state.chars().next())
            .unwrap_or('X')
    }

    /// True of a thread that has ended, but has not been reaped.
    pub(crate) fn is_dead(&self) -> bool {
        matches!(self.state(), 'Z' | 'X')
    }
}

/// Most statuses, and most lines of stat, are shorter.
const STATUS_LEN: usize = 4096;
const STAT_LEN: usize = 1024;

/// What a file says whose end a short read is at: each of those that the kernel writes as one
/// piece. One read, of most.
fn contents<const N: usize>(path: &str, mut buffer: [u8; N]) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    let mut all = Vec::new();
    loop {
        let len = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        all.extend(buffer.iter().take(len));
        if len < N {
            return Ok(all);
        }
    }
}

/// False if /proc is that of another pid namespace, or not mounted: its numbers are those of other
/// processes than system calls mean.
pub fn is_proc_ours() -> bool {
    let own = std::process::id().cast_signed();
    let is_own = |link: std::path::PathBuf| link.to_str() == Some(&own.to_string());
    // An outer namespace may happen to call us the same.
    let has_one_number = |status: Status| {
        let numbers = status.field("NSpid").unwrap_or_default();
        numbers.split_ascii_whitespace().count() <= 1
    };
    fs::read_link("/proc/self").is_ok_and(is_own)
        && Status::of(Tid::new(own)).is_some_and(has_one_number)
}

/// rsp and rip of a thread that sleeps in the kernel: the last two words of /proc/TID/syscall.
pub(crate) fn asleep_at(tid: Tid) -> Option<(Addr, Addr)> {
    registers_of(&fs::read_to_string(format!("/proc/{tid}/syscall")).ok()?)
}

fn registers_of(text: &str) -> Option<(Addr, Addr)> {
    let mut words = text.split_ascii_whitespace().rev();
    let mut register = || {
        let word = words.next()?.strip_prefix("0x")?;
        u64::from_str_radix(word, 16).ok().map(Addr::new)
    };
    let (ip, sp) = (register()?, register()?);
    Some((sp, ip))
}

/// The threads of `process`, in the order of their ids.
pub(crate) fn threads(process: Tid) -> io::Result<Vec<Tid>> {
    let mut threads = Vec::new();
    for entry in fs::read_dir(format!("/proc/{process}/task"))? {
        let name = entry?.file_name();
        threads.extend(
            name.to_str()
                .and_then(|name| name.parse().ok())
                .map(Tid::new),
        );
    }
    threads.sort_unstable();
    Ok(threads)
}

/// A thread of `process` that has not ended: the leader, as long as it lives. Of one that has
/// ended, /proc tells nothing of the memory.
pub(crate) fn living_thread(process: Tid) -> Tid {
    let lives = |tid: &Tid| matches!(state(*tid), Ok(Some(state)) if !matches!(state, 'Z' | 'X'));
    if lives(&process) {
        return process;
    }
    let threads = threads(process).unwrap_or_default();
    threads.into_iter().find(lives).unwrap_or(process)
}

/// All processes that /proc shows.
pub fn processes() -> Vec<Tid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let id = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
    entries.filter_map(id).map(Tid::new).collect()
}

/// Whether the addresses of `process` are limited: RLIMIT_AS, getrlimit(2). Also of one that is
/// gone.
pub(crate) fn has_few_addresses(process: Tid) -> bool {
    let limits = fs::read_to_string(format!("/proc/{process}/limits"));
    !limits.is_ok_and(|limits| has_all_addresses(&limits))
}

fn has_all_addresses(limits: &str) -> bool {
    soft(limits, "Max address space") == Some("unlimited")
}

/// Most bytes that the stack of `process` may grow to (RLIMIT_STACK), if it is limited.
pub(crate) fn stack_limit(process: Tid) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    soft(&limits, "Max stack size")?.parse().ok()
}

/// The soft limit of that name.
fn soft<'a>(limits: &'a str, name: &str) -> Option<&'a str> {
    let limit = limits.lines().find_map(|line| line.strip_prefix(name))?;
    limit.split_ascii_whitespace().next()
}

/// True of a thread of the kernel's own.
pub(crate) fn is_kernel_thread(tid: Tid) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    flags(tid).is_some_and(|flags| flags & PF_KTHREAD != 0)
}

/// True of a thread that the kernel has made in the process of a program, for io_uring(7) or vhost.
/// It never runs an instruction of the program.
pub(crate) fn is_kernel_worker(tid: Tid) -> bool {
    const PF_IO_WORKER: u32 = 0x10;
    const PF_USER_WORKER: u32 = 0x4000;
    flags(tid).is_some_and(|flags| flags & (PF_IO_WORKER | PF_USER_WORKER) != 0)
}

/// Where the stack of the first thread of the process of `tid` is, if it may be known. The part
/// that is not used yet need not be mapped, but is nothing else's.
pub(crate) fn main_stack(tid: Tid) -> Option<Range<u64>> {
    /// Linux maps nothing so near below it (`mmap_base` in arch/x86/mm/mmap.c).
    const NOTHING_ELSE: u64 = 128 << 20;
    let top = main_stack_in(&own_stat(tid).ok()?)?;
    Some(top.saturating_sub(NOTHING_ELSE)..top)
}

/// The twenty-eighth field of /proc/TID/task/TID/stat, which is zero for others than its tracer.
fn main_stack_in(stat: &[u8]) -> Option<u64> {
    stat_field(stat, 28)?.parse().ok()
}

/// The mapping of `tid` that `at` is in, if it can be written to and is next to one, below, that
/// can neither be read nor written: a guard.
pub(crate) fn guarded(tid: Tid, at: u64) -> Option<Range<u64>> {
    let maps = File::open(format!("/proc/{tid}/maps")).ok()?;
    match guarded_by(&maps, at) {
        Ok(stack) => stack,
        // Before Linux 6.11.
        Err(_) => guarded_in(&fs::read(format!("/proc/{tid}/maps")).ok()?, at),
    }
}

/// As the kernel says of the two mappings alone.
fn guarded_by(maps: &File, at: u64) -> Result<Option<Range<u64>>, Errno> {
    let covering = |at: u64| {
        let area = sys::area_from(maps, at)?;
        Ok(area.filter(|area| (area.start..area.end).contains(&at)))
    };
    let Some(stack) = covering(at)?.filter(|area| area.read && area.write) else {
        return Ok(None);
    };
    let below = match stack.start.checked_sub(1) {
        Some(below) => covering(below)?,
        None => None,
    };
    let is_guard = below.is_some_and(|area| !(area.read || area.write || area.exec));
    Ok(is_guard.then_some(stack.start..stack.end))
}

fn guarded_in(maps: &[u8], at: u64) -> Option<Range<u64>> {
    let mut guard = None;
    for line in maps.split(|&byte| byte == b'\n') {
        // The path may be any bytes.
        let mut words = line.split(|&byte| byte == b' ');
        let mut word = || std::str::from_utf8(words.next()?).ok();
        let (start, end) = word()?.split_once('-')?;
        let perms = word()?;
        let bound = |text| u64::from_str_radix(text, 16).ok();
        let range = bound(start)?..bound(end)?;
        if range.contains(&at) {
            return (perms.starts_with("rw") && guard == Some(range.start)).then_some(range);
        }
        guard = Some(range.end).filter(|_| perms.starts_with("---"));
    }
    None
}

/// When a thread began, in clock ticks since the machine did; nothing if there is none.
pub(crate) fn start_time(tid: Tid) -> Option<u64> {
    stat_field(&own_stat(tid).ok()?, 22)?.parse().ok()
}

/// `PF_*` of linux/sched.h: the ninth field of /proc/TID/stat.
fn flags(tid: Tid) -> Option<u32> {
    flags_in(&own_stat(tid).ok()?)
}

/// The letter of a thread's state: R, S, D, T, t, Z, X, ... Nothing if there is no such thread.
///
/// # Errors
/// As for open(2) and read(2).
pub(crate) fn state(tid: Tid) -> io::Result<Option<char>> {
    let is_gone = |error: &io::Error| {
        error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
    };
    match own_stat(tid) {
        Ok(stat) => Ok(stat_field(&stat, 3).and_then(|state| state.chars().next())),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The text of /proc/TID/task/TID/stat. For /proc/TID/stat, the kernel goes through all threads of
/// the process, to sum up.
fn own_stat(tid: Tid) -> io::Result<Vec<u8>> {
    contents(&format!("/proc/{tid}/task/{tid}/stat"), [0; STAT_LEN])
}

fn flags_in(stat: &[u8]) -> Option<u32> {
    stat_field(stat, 9)?.parse().ok()
}

/// Field `number` of /proc/TID/stat, as proc_pid_stat(5) counts them.
fn stat_field(stat: &[u8], number: usize) -> Option<&str> {
    // The second, the name, in parentheses, may hold anything.
    let end = stat.iter().rposition(|&byte| byte == b')')?;
    let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(number.checked_sub(3)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_of_sleepers_are_the_last_two_words() {
        let at = Some((Addr::new(0x7ffe_1238), Addr::new(0x7f00_1234)));
        for (text, expected) in [
            ("0 0x3 0x7f 0x400 0x1 0x2 0x0 0x7ffe1238 0x7f001234\n", at),
            ("-1 0x7ffe1238 0x7f001234\n", at),
            ("running\n", None),
            ("", None),
        ] {
            assert_eq!(registers_of(text), expected, "{text}");
        }
    }

    #[test]
    fn a_limit_of_addresses_is_the_first_of_its_line() {
        let line = "Max data size  unlimited  unlimited  bytes\nMax address space         ";
        let limits = |soft: &str| format!("{line}{soft}            unlimited            bytes\n");
        assert!(has_all_addresses(&limits("unlimited")));
        assert!(!has_all_addresses(&limits("20480000000")));
        assert!(!has_all_addresses(""));
    }

    #[test]
    fn reads_the_fields_of_a_status() {
        let status = Status(
            "Name:\tx\nState:\tZ (zombie)\nTgid:\t7\nSigIgn:\t0000000000001000\nNSpid:\t9\t7\n"
                .into(),
        );
        assert_eq!(status.number("Tgid"), Some(7));
        assert_eq!(status.last_number("NSpid"), Some(7));
        assert_eq!(status.bits("SigIgn"), Some(0x1000));
        assert!(status.is_dead());
        assert_eq!(status.number("TracerPid"), None);
    }

    #[test]
    fn flags_come_after_whatever_the_name_is() {
        let stat = b"7 (a) b) 1 (c)) S 1 7 7 0 -1 4194624 110 0 0 0\n";
        assert_eq!(flags_in(stat), Some(4_194_624));
        assert_eq!(flags_in(b"7 (x) S 1 7"), None);
        assert_eq!(flags_in(b""), None);
    }

    #[test]
    fn a_stack_is_guarded_by_what_cannot_be_read_below_it() {
        let maps = b"1000-2000 r--p 0 0:0 0 /a \xff\n\
            2000-3000 ---p 0 0:0 0 \n3000-8000 rw-p 0 0:0 0 \n\
            8000-9000 rw-p 0 0:0 0 \n9000-a000 ---p 0 0:0 0 \nb000-c000 rw-p 0 0:0 0 \n";
        assert_eq!(guarded_in(maps, 0x7fff), Some(0x3000..0x8000));
        for at in [0x1800, 0x2800, 0x8800, 0xb800, 0xd000] {
            assert_eq!(guarded_in(maps, at), None, "{at:x}");
        }
    }

    #[test]
    fn knows_this_process() {
        let own = Tid::new(std::process::id().cast_signed());
        assert!(!is_kernel_thread(own) && !is_kernel_worker(own));
        assert!(is_proc_ours());
        let on_stack = std::ptr::from_ref(&own) as u64;
        // Tests run in threads.
        let stack = guarded(own, on_stack);
        assert!(
            stack
                .as_ref()
                .is_some_and(|stack| stack.contains(&on_stack))
        );
        assert_eq!(
            stack,
            guarded_in(&fs::read("/proc/self/maps").unwrap(), on_stack)
        );
        let code = knows_this_process as *const () as u64;
        assert!(guarded(own, code).is_none());
        assert!(main_stack(own).is_some_and(|stack| !stack.contains(&on_stack)));
        assert!(threads(own).unwrap().contains(&own));
        assert_eq!(own.process(), Some(own));
    }
}
