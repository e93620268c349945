//! `/proc/PID/maps`: numbers and names that a target chooses.

use leaktap_image::mappings_in;
use leaktap_memory::Addr;

use crate::Random;

/// Names of mappings, and their likes.
const NAMES: [&[u8]; 14] = [
    b"",
    b"[heap]",
    b"[stack]",
    b"[vdso]",
    b"[vvar_vclock]",
    b"[anon:x y]",
    b"/SYSV00000000 (deleted)",
    b"/SYS\xff",
    b"/memfd:leaktap (deleted)",
    b"/lib/a b\\012.so",
    b" (deleted)",
    b"/\xf0\x9f\x92\xa7",
    b"[anon_shmem:\xff]",
    b"anon_inode:[io_uring]",
];

pub(crate) fn parse(text: &[u8]) -> bool {
    let Ok(mappings) = mappings_in(text) else {
        return false;
    };
    for mapping in &mappings {
        let _ = (mapping.len(), mapping.is_empty(), mapping.deleted());
        let ends = [mapping.start, mapping.end, Addr::new(u64::MAX)];
        let _ = ends.map(|at| mapping.contains(at));
    }
    !mappings.is_empty()
}

pub(crate) fn mutate(text: &mut Vec<u8>, random: &mut Random) {
    let mut lines: Vec<Vec<u8>> = text.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect();
    let at = random.below(lines.len());
    match random.below(8) {
        0..3 => lines.insert(at, line(random)),
        3 => name(&mut lines[at], random),
        4 if lines.len() > 1 => drop(lines.remove(at)),
        5 => number(&mut lines[at], random),
        6 => lines.insert(at, lines[at].clone()),
        // Here nearly every change makes the line, and so the text, unreadable.
        _ if random.one_in(3) => {
            let len = lines[at].len();
            random.damage(&mut lines[at], 0..len);
        }
        _ => {}
    }
    *text = lines.join(&b'\n');
    text.truncate(1 << 16);
}

/// A line that the kernel might print, but for its numbers.
fn line(random: &mut Random) -> Vec<u8> {
    let [start, end, offset, inode] = [(); 4].map(|()| random.edge());
    let perms = random.of(&["rw-p", "r-xp", "r--s", "---p", "rwxs"]);
    let dev = random.word() as u16;
    let numbers = format!("{start:x}-{end:x} {perms} {offset:08x} {dev:02x}:01 {inode}  ");
    [numbers.as_bytes(), random.of(&NAMES)].concat()
}

fn name(line: &mut Vec<u8>, random: &mut Random) {
    let at = line.iter().rposition(|byte| *byte == b' ').unwrap_or(0);
    line.truncate(at);
    line.push(b' ');
    line.extend_from_slice(random.of(&NAMES));
}

/// Another digit for one that is there.
fn number(line: &mut [u8], random: &mut Random) {
    let digits = line.iter().enumerate();
    let digits = digits.filter(|(_, byte)| byte.is_ascii_digit());
    let places: Vec<usize> = digits.map(|(at, _)| at).collect();
    if !places.is_empty() {
        line[random.of(&places)] = random.of(b"0123456789abcdef");
    }
}
