//! What a file names as its interpreter: a script's first line, or an ELF file's PT_INTERP.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// What is looked at of a file: the kernel knows 256 bytes of a first line, and the program headers
/// and the name of an interpreter are at the beginning of what linkers write.
const BEGINNING: u64 = 4096;

/// Where an ELF header (elf(5), 64 bits) says where its program headers are, and how many.
const E_PHOFF: usize = 32;
const E_PHNUM: usize = 56;
/// A program header's length, its type for an interpreter, and where it says where the name is.
const PHDR: usize = 56;
const PT_INTERP: u64 = 3;
const P_OFFSET: usize = 8;
const P_FILESZ: usize = 32;

/// The interpreter that the file `program` names, if that is not there.
pub(super) fn missing(program: &OsStr) -> Option<OsString> {
    let mut bytes = Vec::new();
    let is_file = fs::metadata(program).is_ok_and(|file| file.is_file());
    let file = is_file.then(|| File::open(program).ok()).flatten()?;
    file.take(BEGINNING).read_to_end(&mut bytes).ok()?;
    let name = of_script(&bytes).or_else(|| of_elf(&bytes))?;
    fs::metadata(OsStr::from_bytes(name))
        .is_err()
        .then(|| OsString::from_vec(name.to_vec()))
}

/// The first word after `#!`.
fn of_script(bytes: &[u8]) -> Option<&[u8]> {
    let line = bytes
        .strip_prefix(b"#!")?
        .split(|byte| *byte == b'\n')
        .next()?;
    let mut words = line.split(u8::is_ascii_whitespace);
    words.find(|word| !word.is_empty())
}

fn of_elf(bytes: &[u8]) -> Option<&[u8]> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = usize::try_from(number(bytes, E_PHOFF, 8)?).ok()?;
    let headers = usize::try_from(number(bytes, E_PHNUM, 2)?).ok()?;
    let mut headers = bytes.get(table..)?.chunks_exact(PHDR).take(headers);
    let header = headers.find(|header| number(header, 0, 4) == Some(PT_INTERP))?;
    let start = usize::try_from(number(header, P_OFFSET, 8)?).ok()?;
    let length = usize::try_from(number(header, P_FILESZ, 8)?).ok()?;
    bytes
        .get(start..start.checked_add(length)?)?
        .strip_suffix(&[0])
}

/// A number of `size` bytes, at most eight, little endian.
fn number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let mut word = [0; 8];
    word.get_mut(..size)?
        .copy_from_slice(bytes.get(at..at.checked_add(size)?)?);
    Some(u64::from_le_bytes(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_scripts() {
        for (text, expected) in [
            ("#!/bin/sh\n", Some("/bin/sh")),
            ("#! /usr/bin/env -S x\ny", Some("/usr/bin/env")),
            ("#!/bin/sh", Some("/bin/sh")),
            ("#!\n/bin/sh", None),
            ("echo", None),
        ] {
            assert_eq!(
                of_script(text.as_bytes()),
                expected.map(str::as_bytes),
                "{text:?}"
            );
        }
    }

    #[test]
    fn names_of_elf_files() {
        let bytes = fs::read("/proc/self/exe").unwrap();
        let name = of_elf(&bytes).map(String::from_utf8_lossy);
        assert_eq!(name.as_deref(), Some("/lib64/ld-linux-x86-64.so.2"));
        for end in 0..300 {
            of_elf(&bytes[..end]); // does not panic
        }
    }
}
