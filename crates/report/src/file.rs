//! Writing a file as a whole, and trying beforehand whether that will work.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tempfile::Builder;

/// Most links in a row, as of path_resolution(7).
const MOST_LINKS: usize = 40;

/// Written to find out whether a disk is full: a page.
const TRIED: [u8; 4096] = [0; 4096];

/// O_NONBLOCK of open(2).
const NONBLOCK: i32 = 0o4000;

/// What a path names.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// A plain file, or nothing yet, at this path, which is no link. It is replaced as a whole.
    File(PathBuf),
    /// A pipe, a device, or a descriptor as /dev/stdout is. It is written to as it is.
    Stream(PathBuf),
}

/// Writes `content` to `path`. After an error a file that was there before is as it was, and none
/// is left behind. What a link leads to is replaced, not the link. What is no plain file, as a pipe
/// or `/dev/stdout`, is written to as it is. A new file is for its owner alone: what it says is the
/// target's. Returns whether another file was there.
///
/// # Errors
/// As of the file system, or of `content`.
pub fn replace(
    path: &Path,
    content: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> io::Result<bool> {
    match place(path)? {
        Place::Stream(path) => {
            let mut out = BufWriter::new(stream(&path, 0)?);
            content(&mut out)?;
            out.flush()?;
            Ok(false)
        }
        Place::File(path) => {
            let was_there = path.exists();
            // Of mode 0600, and gone if anything fails.
            let partial = Builder::new()
                .prefix(".leaktap.")
                .tempfile_in(folder(&path))?;
            fill(partial.as_file(), content)?;
            partial.persist(&path)?;
            Ok(was_there)
        }
    }
}

/// Tries whether [`replace`] would work now: makes a file beside `path`, and removes it.
///
/// # Errors
/// As [`replace`].
pub fn try_to_replace(path: &Path) -> io::Result<()> {
    match place(path)? {
        // To open it could wait for a reader.
        Place::Stream(path) if fs::metadata(&path)?.file_type().is_fifo() => Ok(()),
        // /dev/full says so even of nothing.
        Place::Stream(path) => stream(&path, NONBLOCK)?.write(&[]).map(drop),
        // Without a name there is nothing to be left by a signal.
        Place::File(path) => {
            let file = tempfile::tempfile_in(folder(&path))?;
            fill(&file, |out| out.write_all(&TRIED))
        }
    }
}

fn place(path: &Path) -> io::Result<Place> {
    let mut path = path.to_path_buf();
    for _ in 0..MOST_LINKS {
        let Ok(target) = fs::read_link(&path) else {
            return match fs::metadata(&path) {
                Ok(there) if there.is_file() => Ok(Place::File(path)),
                Ok(_) => Ok(Place::Stream(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Place::File(path)),
                Err(error) => Err(error),
            };
        };
        if is_descriptor(&path) {
            return Ok(Place::Stream(path));
        }
        path = folder(&path).join(target);
    }
    Err(io::Error::other("too many levels of symbolic links"))
}

/// True of `/proc/PID/fd/N`: what that leads to has no other name, or is open for somebody else,
/// too.
fn is_descriptor(path: &Path) -> bool {
    let folder = fs::canonicalize(folder(path));
    folder.is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd"))
}

fn folder(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn stream(path: &Path, flags: i32) -> io::Result<File> {
    // A descriptor may be of a plain file that has content.
    let mut options = OpenOptions::new();
    options.append(true).custom_flags(flags).open(path)
}

fn fill(file: &File, content: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
    let mut out = BufWriter::new(file);
    content(&mut out)?;
    out.flush()?;
    drop(out);
    file.sync_all() // some file systems tell only now that the disk is full
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsString;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn names(folder: &Path) -> Vec<OsString> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_failure_leaves_what_was_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let fails = |out: &mut dyn Write| {
            out.write_all(b"half")?;
            Err(io::ErrorKind::StorageFull.into())
        };
        assert!(replace(&path, fails).is_err());
        assert!(names(folder.path()).is_empty());

        assert!(!replace(&path, |out| out.write_all(b"first")).unwrap());
        assert!(replace(&path, fails).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"first");
        assert!(replace(&path, |out| out.write_all(b"2nd")).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"2nd");
        assert_eq!(names(folder.path()), ["x"]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_try_leaves_nothing_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        try_to_replace(&path).unwrap();
        assert!(names(folder.path()).is_empty());
        fs::write(&path, "old").unwrap();
        try_to_replace(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"old");
        try_to_replace(Path::new("/dev/null")).unwrap();
        let kind = |path: &Path| try_to_replace(path).unwrap_err().kind();
        assert_eq!(kind(Path::new("/dev/full")), io::ErrorKind::StorageFull);
        assert_eq!(kind(&path.join("y")), io::ErrorKind::NotADirectory);
        assert_eq!(kind(&folder.path().join("no/x")), io::ErrorKind::NotFound);
        assert_eq!(kind(folder.path()), io::ErrorKind::IsADirectory);
    }

    #[test]
    fn links_and_devices_stay_what_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("file"), "old").unwrap();
        symlink("file", path("link")).unwrap();
        symlink("link", path("link to it")).unwrap();
        symlink("none yet", path("dangling")).unwrap();
        for (link, file) in [("link to it", "file"), ("dangling", "none yet")] {
            replace(&path(link), |out| out.write_all(b"new")).unwrap();
            assert_eq!(fs::read(path(file)).unwrap(), b"new");
            assert!(fs::symlink_metadata(path(link)).unwrap().is_symlink());
        }
        symlink("ring", path("ring")).unwrap();
        assert!(replace(&path("ring"), |_| Ok(())).is_err());

        replace(Path::new("/dev/null"), |out| out.write_all(b"new")).unwrap();
        let full = replace(Path::new("/dev/full"), |out| out.write_all(b"new"));
        assert_eq!(full.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert!(replace(folder.path(), |_| Ok(())).is_err());
    }

    /// As of /dev/stdout, where the shell has redirected that: what is there already stays.
    #[test]
    fn a_descriptor_is_written_to_as_it_is() {
        use std::os::fd::AsRawFd;
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"of the program, ").unwrap();
        let descriptor = format!("/proc/self/fd/{}", file.as_file().as_raw_fd());
        try_to_replace(Path::new(&descriptor)).unwrap();
        replace(Path::new(&descriptor), |out| out.write_all(b"of leaktap")).unwrap();
        assert_eq!(
            fs::read(file.path()).unwrap(),
            b"of the program, of leaktap"
        );
    }
}
