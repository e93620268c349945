//! Call frame information to rows, and walks by these rows.
//!
//! An input is two bytes that say how long `.eh_frame` is, that section, and `.debug_frame` behind
//! it.

use std::ops::ControlFlow;

use leaktap_memory::{Addr, ReadMemory, Svma, Unreadable};
use leaktap_unwind::{CfiSections, Found, ModuleRows, Start, rows, walk_with};

use crate::Random;

mod entries;

/// Address of `.eh_frame`.
const SECTION: u64 = 0x1000;

/// Longest input.
const LONGEST: usize = 8 << 10;

/// Walks made by the rows of an input.
const WALKS: usize = 4;

pub(crate) fn parse(bytes: &[u8]) -> bool {
    let Some((eh_frame, debug_frame)) = sections(bytes) else {
        return false;
    };
    let built = rows(&CfiSections {
        base: Svma(0),
        eh_frame: Some((Svma(SECTION), eh_frame)),
        debug_frame: Some(debug_frame),
        text: Some(Svma(entries::CODE)),
        got: Some(Svma(0x8000)),
        instead: &[],
        signal_returns: &[Svma(0x500)],
    });
    let mut rules = ModuleRows {
        base: Addr::new(0),
        rows: &built.rows,
    };
    let is_sorted = built.rows.is_sorted_by(|a, b| a.start() < b.start());
    assert!(is_sorted, "rows are searched by halves");
    for pc in built.rows.iter().map(|row| row.start()).take(WALKS) {
        let start = Start {
            ip: Addr::new(pc.into()),
            sp: Addr::new(0x7000),
            bp: 0x7040,
        };
        let memory = Sawtooth(pc.into());
        let mut frames = 0;
        walk_with(start, &memory, &mut rules, |_| {
            frames += 1;
            match frames {
                0..256 => ControlFlow::Continue(()),
                _ => ControlFlow::Break(()),
            }
        });
    }
    // One row is made of no entry: that of the signal return.
    let made = built.rows.iter().filter(|row| row.found() != Found::NoCfi);
    made.count() > 1
}

fn sections(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (len, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(u16::from_le_bytes(*len).into())
}

fn join(eh_frame: &[u8], debug_frame: &[u8]) -> Vec<u8> {
    let len = (eh_frame.len() as u16).to_le_bytes();
    [&len, eh_frame, debug_frame].concat()
}

/// Memory with addresses of the code everywhere.
struct Sawtooth(u64);

impl ReadMemory for Sawtooth {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let word = entries::CODE + (at.get() ^ self.0) % 0x400;
        for (to, from) in buf.iter_mut().zip(word.to_le_bytes()) {
            *to = from;
        }
        Ok(())
    }
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    let (mut eh_frame, mut debug_frame) = match sections(bytes) {
        Some((one, other)) => (one.to_vec(), other.to_vec()),
        None => (Vec::new(), Vec::new()),
    };
    let is_eh = !random.one_in(3);
    let section = match is_eh {
        true => &mut eh_frame,
        false => &mut debug_frame,
    };
    let len = section.len();
    match random.below(8) {
        0..4 if len < LONGEST / 4 => entries::append(section, is_eh, random),
        4 => section.truncate(len / 2),
        _ => random.damage(section, 0..len),
    }
    section.truncate(LONGEST / 2);
    *bytes = join(&eh_frame, &debug_frame);
}
