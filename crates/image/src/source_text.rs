//! Source files, which debug information names.

use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use std::{fs, fs::File};

use nix::libc;

use crate::patience::within;

/// Largest file that is read.
const LARGEST: u64 = 16 << 20;

/// What names of source files end in. Whoever made the target has chosen its paths: they must not
/// make a report show what else leaktap may read, /etc/shadow or a key.
const ENDS: [&str; 52] = [
    "ada", "adb", "ads", "asm", "c", "c++", "cc", "cl", "cpp", "cppm", "cr", "cu", "cuh", "cxx",
    "d", "f", "f03", "f08", "f90", "f95", "for", "go", "h", "h++", "hh", "hpp", "hs", "hxx", "inc",
    "inl", "ipp", "ixx", "java", "jl", "kt", "l", "m", "ml", "mm", "nim", "odin", "pas", "pyx",
    "rs", "s", "swift", "tcc", "v", "vala", "y", "yy", "zig",
];

/// A file's text, and when it was written last.
#[derive(Debug)]
pub struct SourceText {
    /// All of it.
    pub bytes: Vec<u8>,
    /// When it was written last, where that is known.
    pub modified: Option<SystemTime>,
}

impl SourceText {
    /// Reads a file, if it is a regular one, has a name as source code has, and no zero in it.
    ///
    /// # Errors
    /// What is wrong with it; `TimedOut` where its file system does not answer.
    pub fn read(path: &Path) -> io::Result<SourceText> {
        let path = path.to_path_buf();
        within(move || {
            // A pipe would block, a device might do anything: they are not even opened.
            checked(&fs::metadata(&path)?)?;
            let file = fs::OpenOptions::new()
                .read(true)
                .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
                .open(&path)?;
            let metadata = file.metadata()?;
            checked(&metadata)?;
            is_source(&file)?;
            let mut bytes = Vec::new();
            file.take(LARGEST).read_to_end(&mut bytes)?;
            match bytes.contains(&0) {
                true => Err(io::Error::other("it is no text")),
                false => Ok(SourceText {
                    bytes,
                    modified: metadata.modified().ok(),
                }),
            }
        })
    }
}

fn checked(metadata: &fs::Metadata) -> io::Result<()> {
    match (metadata.is_file(), metadata.len()) {
        (false, _) => Err(io::Error::other("it is no regular file")),
        (true, ..=LARGEST) => Ok(()),
        (true, _) => Err(io::Error::other("it has more than 16 MiB")),
    }
}

/// An error unless the name that `file` really has, behind all links, is one of source code.
fn is_source(file: &File) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let path: PathBuf = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    let end = path.extension().and_then(|end| end.to_str());
    let end = end.map(str::to_ascii_lowercase);
    match end.is_some_and(|end| ENDS.contains(&&*end)) {
        true => Ok(()),
        false => Err(io::Error::other("its name is not one of source code")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::stat::Mode;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_source_code_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a.c"), "int x;\n").unwrap();
        fs::write(path("secret"), "password").unwrap();
        fs::write(path("binary.c"), "a\0b").unwrap();
        fs::create_dir(path("folder.c")).unwrap();
        nix::unistd::mkfifo(&path("pipe.c"), Mode::S_IRWXU).unwrap();
        symlink(path("secret"), path("link.c")).unwrap();
        symlink(path("a.c"), path("link")).unwrap();
        symlink("/dev/null", path("null.c")).unwrap();
        let large = File::create(path("large.c")).unwrap();
        large.set_len(LARGEST + 1).unwrap();
        let read = |name: &str| match SourceText::read(&path(name)) {
            Ok(text) => String::from_utf8(text.bytes).unwrap(),
            Err(error) => error.to_string(),
        };
        for (name, expected) in [
            ("a.c", "int x;\n"),
            ("link", "int x;\n"),
            ("secret", "its name is not one of source code"),
            ("link.c", "its name is not one of source code"),
            ("binary.c", "it is no text"),
            ("folder.c", "it is no regular file"),
            ("pipe.c", "it is no regular file"),
            ("null.c", "it is no regular file"),
            ("large.c", "it has more than 16 MiB"),
        ] {
            assert_eq!(read(name), expected, "{name}");
        }
        assert!(read("none.c").starts_with("No such file"));
    }
}
