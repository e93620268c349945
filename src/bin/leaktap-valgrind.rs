//! `leaktap-valgrind`: leaktap under valgrind's command line, for what expects `valgrind
//! --tool=memcheck` and reads its text, as CTest does.
//!
//! It becomes `leaktap run`, which lies beside it.

use std::ffi::{CString, OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::process::ExitCode;

use leaktap_tracee::become_program;

/// valgrind's own status for a command line that it does not understand.
const USAGE: u8 = 1;

/// leaktap's status for what it could not do.
const FAILURE: u8 = 125;

/// Most frames that leaktap keeps of a stack.
const DEEPEST: u32 = 256;

fn main() -> ExitCode {
    let (status, why) = match translated(std::env::args_os().skip(1)) {
        Ok(words) => (FAILURE, become_leaktap(&words)),
        Err(why) => (USAGE, why),
    };
    // Where nobody can read it, the exit status says it.
    let _ = writeln!(io::stderr(), "leaktap-valgrind: {why}");
    ExitCode::from(status)
}

/// Executes leaktap, with nothing changed of what it finds. Returns why that cannot be.
fn become_leaktap(words: &[OsString]) -> String {
    let path = match std::env::current_exe() {
        Ok(own) => own.with_file_name("leaktap"),
        Err(error) => return format!("cannot find leaktap: {error}"),
    };
    let all = [path.as_os_str()]
        .into_iter()
        .chain(words.iter().map(OsString::as_os_str));
    let all = all.map(|word| CString::new(word.as_bytes()));
    match all.collect::<Result<Vec<_>, _>>() {
        Ok(all) => match all.first() {
            Some(program) => {
                let errno = become_program(program, &all);
                format!("cannot execute {}: {}", path.display(), errno.desc())
            }
            None => "cannot find leaktap".to_owned(),
        },
        Err(_) => "an argument has a zero in it".to_owned(),
    }
}

/// What valgrind's options come to. Of one that is there more than once, the last one counts.
#[derive(Default)]
struct Options {
    quiet: bool,
    verbose: bool,
    xml: bool,
    log: Option<OsString>,
    xml_log: Option<OsString>,
    status: Option<OsString>,
    /// No leak is an error.
    no_check: bool,
    /// Which are, if that is said: `all`, `none`, or a list.
    kinds: Option<String>,
    depth: Option<String>,
    follow: bool,
    suppressions: Vec<OsString>,
}

impl Options {
    fn take(&mut self, option: &OsStr) -> Result<(), String> {
        let text = option.to_string_lossy();
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        let exact = || Some(value_of(option));
        match (name, value) {
            ("--tool", "memcheck" | "") => {}
            ("--tool", tool) => return Err(format!("there is no tool {tool}, only memcheck")),
            ("-q" | "--quiet", _) => (self.quiet, self.verbose) = (true, false),
            ("-v" | "--verbose", _) => (self.quiet, self.verbose) = (false, true),
            ("--log-file", _) => self.log = exact(),
            ("--xml-file", _) => self.xml_log = exact(),
            ("--log-fd", _) => self.log = Some(format!("/dev/fd/{value}").into()),
            ("--xml-fd", _) => self.xml_log = Some(format!("/dev/fd/{value}").into()),
            ("--xml", _) => self.xml = value == "yes",
            ("--error-exitcode", _) => self.status = exact().filter(|status| status != "0"),
            ("--leak-check", _) => self.no_check = matches!(value, "no" | "summary"),
            ("--errors-for-leak-kinds", _) => self.kinds = Some(value.to_owned()),
            ("--suppressions", _) => self.suppressions.extend(exact()),
            ("--trace-children", _) => self.follow = value == "yes",
            ("--num-callers", _) => self.depth = Some(depth(value)?),
            // What is about other errors than leaks, or about how they are found.
            _ if text.starts_with("--") && text.contains('=') => {}
            _ => return Err(format!("unknown option {text}")),
        }
        Ok(())
    }

    /// leaktap's words for them.
    fn words(self) -> Vec<OsString> {
        let mut words: Vec<OsString> = vec!["run".into()];
        let log = if self.xml {
            self.xml_log.or(self.log)
        } else {
            self.log
        };
        let flags = [
            (self.quiet, "-q"),
            (self.verbose, "-v"),
            (self.follow, "-f"),
        ];
        words.extend(
            flags
                .iter()
                .filter(|(is_set, _)| *is_set)
                .map(|(_, flag)| (*flag).into()),
        );
        words.extend(["--leak-check", "reachable"].map(OsString::from));
        let no_kind = self.kinds.as_deref() == Some("none");
        let status = self.status.filter(|_| !self.no_check && !no_kind);
        let kinds = match self.kinds.as_deref() {
            None | Some("none") => None,
            Some("all") => Some("definite,indirect,possible,reachable,unmatched".into()),
            // What could not be graded may be any of them.
            Some(kinds) => Some(format!("{kinds},unmatched").into()),
        };
        let values = [
            ("--depth", self.depth.map(OsString::from)),
            ("--report-file", log),
            ("--error-exitcode", status),
            ("--errors-for", kinds),
        ];
        for (option, value) in values {
            words.extend(value.into_iter().flat_map(|value| [option.into(), value]));
        }
        let files = self.suppressions.into_iter();
        words.extend(files.flat_map(|file| ["--suppressions".into(), file]));
        let format = if self.xml { "valgrind-xml" } else { "memcheck" };
        words.extend(["-F", format, "--"].map(OsString::from));
        words
    }
}

/// The arguments of leaktap that do what these do.
fn translated(arguments: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut options = Options::default();
    let mut arguments = arguments.peekable();
    while let Some(option) = arguments.next_if(|word| word.as_bytes().starts_with(b"-")) {
        if option == "--" {
            break;
        }
        options.take(&option)?;
    }
    if arguments.peek().is_none() {
        return Err("no program: leaktap-valgrind [OPTIONS] PROGRAM [ARG...]".to_owned());
    }
    let mut words = options.words();
    words.extend(arguments);
    Ok(words)
}

/// What is behind the first `=`.
fn value_of(option: &OsStr) -> OsString {
    let mut parts = option.as_bytes().splitn(2, |&byte| byte == b'=');
    OsStr::from_bytes(parts.nth(1).unwrap_or_default()).to_owned()
}

fn depth(value: &str) -> Result<String, String> {
    let frames: u32 = value
        .parse()
        .map_err(|_| format!("--num-callers={value} is no number"))?;
    Ok(frames.clamp(1, DEEPEST).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<String, String> {
        let words = translated(line.split_whitespace().map(OsString::from))?;
        let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
        Ok(words.join(" "))
    }

    #[test]
    fn options_are_translated() {
        for (line, expected) in [
            ("./x -v", "run --leak-check reachable -F memcheck -- ./x -v"),
            (
                "-q --tool=memcheck --leak-check=yes --show-reachable=yes --num-callers=500 \
                 --log-file=/a=b.log ./x",
                "run -q --leak-check reachable --depth 256 --report-file /a=b.log -F memcheck \
                 -- ./x",
            ),
            (
                "--error-exitcode=3 --suppressions=a --suppressions=b --trace-children=yes -- ./x",
                "run -f --leak-check reachable --error-exitcode 3 --suppressions a \
                 --suppressions b -F memcheck -- ./x",
            ),
            (
                "--errors-for-leak-kinds=possible --leak-check=full ./x",
                "run --leak-check reachable --errors-for possible,unmatched -F memcheck -- ./x",
            ),
            (
                "--errors-for-leak-kinds=none --error-exitcode=3 --leak-check=full ./x",
                "run --leak-check reachable -F memcheck -- ./x",
            ),
            (
                "--xml=yes --xml-file=o.xml ./x",
                "run --leak-check reachable --report-file o.xml -F valgrind-xml -- ./x",
            ),
            (
                "--log-fd=9 ./x",
                "run --leak-check reachable --report-file /dev/fd/9 -F memcheck -- ./x",
            ),
        ] {
            assert_eq!(words(line).as_deref(), Ok(expected));
        }
        for line in [
            "",
            "-q",
            "--tool=helgrind ./x",
            "--nonsense ./x",
            "--num-callers=x ./x",
        ] {
            assert!(words(line).is_err(), "{line}");
        }
    }
}
