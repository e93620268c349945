//! How the allocators' functions begin in Debian's and Ubuntu's packages: glibc 2.27 to 2.43, musl,
//! jemalloc, tcmalloc, mimalloc. `prologues.txt` has, of each, the bytes that a jump displaces.

use leaktap_arch::{ENDBR64, RET};
use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::Site;

const AT: Addr = Addr::new(0x7f00_0000_1000);

struct Nothing;

impl ReadMemory for Nothing {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        Err(Unreadable { at, len: buf.len() })
    }
}

/// The bytes of a line, whether the function ends with them, and what they are.
fn prologue(line: &str) -> (Vec<u8>, bool, &str) {
    let (head, text) = line.split_once(": ").unwrap();
    let (bytes, end) = head.split_once(' ').unwrap();
    let digits = bytes.as_bytes().chunks(2);
    let byte = |digits| u8::from_str_radix(str::from_utf8(digits).unwrap(), 16).unwrap();
    (digits.map(byte).collect(), end == "ends", text)
}

#[test]
fn all_known_prologues_can_be_displaced() {
    let lines: Vec<_> = include_str!("prologues.txt").lines().collect();
    assert!(lines.len() > 100);
    for (bytes, ends, text) in lines.into_iter().map(prologue) {
        for endbr64 in [&[][..], &ENDBR64] {
            let rest = if ends { &[][..] } else { &[RET] };
            let function = [endbr64, &bytes, rest].concat();
            let site = Site::find(&function, AT, &Nothing);
            let site = site.unwrap_or_else(|refusal| panic!("{text}: {refusal}"));
            assert_eq!(site.displaced(), bytes, "{text}");
            assert_eq!(site.at(), AT.wrapping_offset(endbr64.len() as i64));
            for distance in [1 << 30, -(1 << 30)] {
                let to = AT.wrapping_offset(distance);
                let moved = site.moved(to).and(site.jump(to)).map(drop);
                assert_eq!(moved, Ok(()), "{text}");
            }
        }
    }
}
