//! Every executable byte of a process, against the files that it comes from.

use std::fs::File;
use std::os::unix::fs::FileExt;

use nix::unistd::Pid;

use crate::snapshot::{Mapping, mappings};

/// Bytes compared at a time.
const CHUNK: usize = 1 << 20;

/// Which mappings are not as their files are. What the kernel fills up behind a file's end is 0.
pub(crate) fn changed(pid: Pid) -> Vec<String> {
    let Ok(memory) = File::open(format!("/proc/{pid}/mem")) else {
        return vec!["its memory cannot be read".to_owned()];
    };
    let code = mappings(pid)
        .into_iter()
        .filter(|m| m.is_code() && m.has_file());
    code.filter_map(|mapping| difference(pid, &memory, &mapping))
        .collect()
}

fn difference(pid: Pid, memory: &File, mapping: &Mapping) -> Option<String> {
    let name = &mapping.name;
    let Ok(file) = File::open(format!("/proc/{pid}/root{name}")) else {
        return Some(format!("cannot read {name}"));
    };
    let length = mapping.end - mapping.start;
    for from in (0..length).step_by(CHUNK) {
        let size = (length - from).min(CHUNK as u64) as usize;
        let (mut expected, mut seen) = (vec![0; size], vec![0; size]);
        fill(&file, &mut expected, mapping.offset + from);
        if memory
            .read_exact_at(&mut seen, mapping.start + from)
            .is_err()
        {
            return Some(format!(
                "{name} cannot be read at {:#x}",
                mapping.start + from
            ));
        }
        if let Some(at) = (0..size).find(|&at| expected[at] != seen[at]) {
            let (was, is) = (&expected[at..size.min(at + 8)], &seen[at..size.min(at + 8)]);
            let at = mapping.offset + from + at as u64;
            return Some(format!("{name} at offset {at:#x}: {was:02x?} is {is:02x?}"));
        }
    }
    None
}

/// Reads as much as there is.
fn fill(file: &File, bytes: &mut [u8], mut at: u64) {
    let mut done = 0;
    while let Ok(count @ 1..) = file.read_at(&mut bytes[done..], at) {
        done += count;
        at += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_as_its_files_are() {
        assert_eq!(changed(Pid::this()), Vec::<String>::new());
    }
}
