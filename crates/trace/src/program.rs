//! What a process runs, and what its user calls that: redis-server may be a link to
//! redis-check-rdb.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use leaktap_tracee::Tid;

/// The program of a process.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The name that it was started by, if that leads to the file; else the file's.
    pub called: PathBuf,
    /// The file itself.
    pub file: PathBuf,
}

impl Program {
    /// That of `pid`.
    ///
    /// # Errors
    /// As for readlink(2).
    pub fn of(pid: Tid) -> io::Result<Program> {
        let file = fs::read_link(format!("/proc/{pid}/exe"))?;
        let mut names = names(pid, &file).into_iter();
        let called = match names.any(|name| name == file) {
            true => None,
            false => leading(pid, &file),
        };
        let called = called.unwrap_or_else(|| file.clone());
        Ok(Program { called, file })
    }

    /// The last part of what it is called.
    pub fn name(&self) -> String {
        let name = self.called.file_name().unwrap_or(self.called.as_os_str());
        name.to_string_lossy().into_owned()
    }
}

/// The arguments of `pid`, which need not be UTF-8: what is not is replaced.
pub(crate) fn arguments(pid: Tid) -> Vec<String> {
    let bytes = command_line(pid);
    let ended = bytes.split_inclusive(|byte| *byte == 0);
    let words = ended.map(|word| word.strip_suffix(&[0]).unwrap_or(word));
    words
        .map(|word| String::from_utf8_lossy(word).into_owned())
        .collect()
}

fn command_line(pid: Tid) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()
}

/// A name of `pid` by which its file is found, where the process sees it.
fn leading(pid: Tid, file: &Path) -> Option<PathBuf> {
    let executable = fs::metadata(format!("/proc/{pid}/exe")).ok()?;
    let root = PathBuf::from(format!("/proc/{pid}/root"));
    let is_executable = |name: &PathBuf| {
        let below_root = name.strip_prefix("/").unwrap_or(name);
        let found = fs::metadata(root.join(below_root));
        let inode = |of: &fs::Metadata| (of.dev(), of.ino());
        found.is_ok_and(|found| inode(&found) == inode(&executable))
    };
    names(pid, file).into_iter().find(is_executable)
}

/// What `pid` may have been called: by its first argument, as a path or beside `file`, and by the
/// name that the kernel keeps, which is the one that it was executed by, cut to 15 bytes.
fn names(pid: Tid, file: &Path) -> Vec<PathBuf> {
    let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let arguments = command_line(pid);
    let first = arguments.split(|byte| *byte == 0).next();
    let first = Path::new(OsStr::from_bytes(first.unwrap_or_default()));
    let comm = Path::new(OsStr::from_bytes(comm.trim_ascii_end()));
    let folder = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
    let is_path = first.components().count() > 1;
    let path = is_path.then(|| folder.join(first).components().collect());
    let beside = |name: &Path| Some(file.with_file_name(name.file_name()?));
    let names = [path, beside(first), beside(comm)];
    names.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn asleep(program: &Path, folder: &Path) -> Child {
        let mut command = Command::new(program);
        let command = command.current_dir(folder).stdin(Stdio::piped());
        command.spawn().unwrap()
    }

    #[test]
    fn a_link_is_what_the_user_calls_it_and_what_leads_elsewhere_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let cat = fs::canonicalize("/bin/cat").unwrap();
        fs::copy(&cat, at("cat")).unwrap();
        symlink("cat", at("a-server")).unwrap();
        fs::create_dir(at("bin")).unwrap();
        fs::hard_link(at("cat"), at("bin/a-copy")).unwrap();
        let (cat, server, copy) = (at("cat"), at("a-server"), at("bin/a-copy"));
        let started = [
            (&cat, &cat, &cat),
            (&server, &server, &cat),
            (&copy, &copy, &copy),
            (&PathBuf::from("./a-server"), &server, &cat),
        ];
        for (start, called, file) in started {
            let mut child = asleep(start, folder.path());
            let found = Program::of(Tid::new(child.id().cast_signed())).unwrap();
            drop(child.stdin.take());
            child.wait().unwrap();
            assert_eq!((&found.called, &found.file), (called, file));
        }
    }
}
