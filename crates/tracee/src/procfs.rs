//! The few facts about a thread that only /proc tells (proc_pid_status(5), proc_pid_stat(5)).

use std::fs;
use std::io;

use leaktap_memory::Addr;

use crate::Tid;

/// The text of /proc/TID/status.
pub(crate) struct Status(String);

impl Status {
    /// None if there is no such thread (any more).
    pub(crate) fn of(tid: Tid) -> Option<Status> {
        fs::read(format!("/proc/{tid}/status"))
            .ok()
            // The name of the program may be any bytes.
            .map(|bytes| Status(String::from_utf8_lossy(&bytes).into_owned()))
    }

    fn field(&self, name: &str) -> Option<&str> {
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

/// Whether the addresses of `process` are limited: RLIMIT_AS, getrlimit(2). Also of one that is gone.
pub(crate) fn has_few_addresses(process: Tid) -> bool {
    let limits = fs::read_to_string(format!("/proc/{process}/limits"));
    !limits.is_ok_and(|limits| has_all_addresses(&limits))
}

fn has_all_addresses(limits: &str) -> bool {
    let mut lines = limits.lines();
    let limit = lines.find_map(|line| line.strip_prefix("Max address space"));
    limit.is_some_and(|limit| limit.trim_start().starts_with("unlimited"))
}

/// True of a thread of the kernel: `PF_KTHREAD` in the flags of /proc/PID/stat.
pub(crate) fn is_kernel_thread(tid: Tid) -> bool {
    const PF_KTHREAD: u32 = 0x0020_0000;
    let flags = fs::read(format!("/proc/{tid}/stat")).ok().and_then(|stat| {
        // The name, in parentheses, may hold anything; the flags are the seventh field after it.
        let end = stat.iter().rposition(|&byte| byte == b')')?;
        let rest = std::str::from_utf8(stat.get(end + 1..)?).ok()?;
        rest.split_ascii_whitespace().nth(6)?.parse::<u32>().ok()
    });
    flags.is_some_and(|flags| flags & PF_KTHREAD != 0)
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
    fn knows_this_process() {
        let own = Tid::new(std::process::id().cast_signed());
        assert!(!is_kernel_thread(own));
        assert!(threads(own).unwrap().contains(&own));
        assert_eq!(own.process(), Some(own));
    }
}
