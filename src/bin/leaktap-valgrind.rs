//! `leaktap-valgrind`: leaktap under valgrind's command line, for what expects `valgrind
//! --tool=memcheck` and reads its text, as CTest does.
//!
//! It becomes `leaktap run`, which lies beside it.

use std::ffi::{OsStr, OsString};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

/// valgrind's own status for a command line that it does not understand.
const USAGE: u8 = 1;

/// leaktap's status for what it could not do.
const FAILURE: u8 = 125;

/// Most frames that leaktap keeps of a stack.
const DEEPEST: u32 = 256;

fn main() -> ExitCode {
    let (status, why) = match translated(std::env::args_os().skip(1)) {
        Ok(words) => match std::env::current_exe() {
            Ok(own) => {
                let leaktap = own.with_file_name("leaktap");
                let error = Command::new(&leaktap).args(words).exec();
                (
                    FAILURE,
                    format!("cannot execute {}: {error}", leaktap.display()),
                )
            }
            Err(error) => (FAILURE, format!("cannot find leaktap: {error}")),
        },
        Err(why) => (USAGE, why),
    };
    // Where nobody can read it, the exit status says it.
    let _ = writeln!(io::stderr(), "leaktap-valgrind: {why}");
    ExitCode::from(status)
}

/// The arguments of leaktap that do what these do.
fn translated(arguments: impl Iterator<Item = OsString>) -> Result<Vec<OsString>, String> {
    let mut words: Vec<OsString> = vec!["run".into()];
    let mut format = "memcheck";
    let mut arguments = arguments.peekable();
    while let Some(option) = arguments.next_if(|word| word.as_bytes().starts_with(b"-")) {
        if option == "--" {
            break;
        }
        let text = option.to_string_lossy().into_owned();
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        let exact = || value_of(&option);
        match (name, value) {
            ("--tool", "memcheck" | "") => {}
            ("--tool", tool) => return Err(format!("there is no tool {tool}, only memcheck")),
            ("-q" | "--quiet", _) => words.push("-q".into()),
            ("-v" | "--verbose", _) => words.push("-v".into()),
            ("--log-file" | "--xml-file", _) => words.extend(["--report-file".into(), exact()]),
            ("--log-fd" | "--xml-fd", _) => {
                words.extend(["--report-file".into(), format!("/dev/fd/{value}").into()]);
            }
            ("--xml", "yes") => format = "valgrind-xml",
            ("--error-exitcode", "0") => {}
            ("--error-exitcode", _) => words.extend(["--error-exitcode".into(), exact()]),
            ("--suppressions", _) => words.extend(["--suppressions".into(), exact()]),
            ("--trace-children", "yes") => words.push("-f".into()),
            ("--num-callers", _) => words.extend(["--depth".into(), depth(value)?.into()]),
            // What is about other errors than leaks, or about how they are found.
            _ if text.starts_with("--") && text.contains('=') => {}
            _ => return Err(format!("unknown option {text}")),
        }
    }
    if arguments.peek().is_none() {
        return Err("no program: leaktap-valgrind [OPTIONS] PROGRAM [ARG...]".to_owned());
    }
    words.extend(["-F", format, "--"].map(OsString::from));
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
            ("./x -v", "run -F memcheck -- ./x -v"),
            (
                "-q --tool=memcheck --leak-check=yes --show-reachable=yes --num-callers=500 \
                 --log-file=/a=b.log ./x",
                "run -q --depth 256 --report-file /a=b.log -F memcheck -- ./x",
            ),
            (
                "--error-exitcode=3 --suppressions=a --suppressions=b --trace-children=yes -- ./x",
                "run --error-exitcode 3 --suppressions a --suppressions b -f -F memcheck -- ./x",
            ),
            (
                "--xml=yes --xml-file=o.xml ./x",
                "run --report-file o.xml -F valgrind-xml -- ./x",
            ),
            (
                "--log-fd=9 ./x",
                "run --report-file /dev/fd/9 -F memcheck -- ./x",
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
