//! Whatever is in registers, memory and rules: a walk ends, and does not panic.

mod common;

use std::ops::ControlFlow;

use common::Words;
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_testing::Random;
use leaktap_unwind::{
    Cfa, Frame, ModuleRows, Row, Rule, SavedBp, Start, Step, Visited, walk, walk_with,
};

/// Memory that has some value everywhere, always the same.
struct Everywhere(u64);

impl ReadMemory for Everywhere {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        let value = Random((at.get() ^ self.0) | 1).number();
        let value = if value & 3 == 0 {
            value
        } else {
            value & 0xffff
        };
        buf.copy_from_slice(&value.to_le_bytes());
        Ok(())
    }
}

fn number(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => random.number(),
        1 => u64::MAX - random.below(64),
        2 => random.below(64),
        _ => 0x1000 + random.below(512) * 8,
    }
}

fn step(random: &mut Random) -> Step {
    let any = number(random) as i32;
    let near = random.below(64) as i32 * 8 - 64;
    let (offset, small) = (if random.below(8) == 0 { any } else { near }, any as i16);
    let bp = match random.below(5) {
        0 => SavedBp::Unchanged,
        1 => SavedBp::AtCfa(-near),
        2 => SavedBp::AtBp(offset),
        3 => SavedBp::AtSp(offset),
        _ => SavedBp::Lost,
    };
    let cfa = match random.below(8) {
        0 => {
            return Step::SignalFrame {
                ip: small,
                sp: offset,
                bp: near,
            };
        }
        1 => return [Step::End, Step::Unsupported][random.below(2) as usize],
        2 => Cfa::Bp(offset),
        3 => Cfa::AtBp {
            at: offset,
            plus: small,
        },
        4 => Cfa::AtSp {
            at: offset,
            plus: small,
        },
        5 => Cfa::Plt {
            offset,
            from: small,
        },
        _ => Cfa::Sp(offset),
    };
    Step::Call { cfa, bp }
}

fn random_rows(random: &mut Random) -> Vec<Row> {
    let mut rows = Vec::new();
    for _ in 0..random.below(40) {
        let start = number(random) as u32;
        rows.push(match random.below(6) {
            0 => Row::gap(start),
            _ => Row::new(start, Rule::pack(step(random))),
        });
    }
    rows.sort_by_key(|row| row.start());
    rows
}

fn start(random: &mut Random) -> Start {
    Start {
        ip: Addr::new(number(random)),
        sp: Addr::new(number(random)),
        bp: number(random),
    }
}

#[test]
fn random_stacks_end() {
    let mut random = Random(0x57ac_4a11);
    for _ in 0..100_000 {
        let rows = random_rows(&mut random);
        let words = (0..random.below(200))
            .map(|_| number(&mut random))
            .collect();
        let mem = Words {
            base: 0x1000,
            words,
        };
        let mut rules = ModuleRows {
            base: Addr::new(number(&mut random)),
            rows: &rows,
        };
        // No limit of frames: in finite memory the walk has to end by itself.
        let visit = |_: Visited| ControlFlow::Continue(());
        walk_with(start(&mut random), &mem, &mut rules, visit);
    }
}

#[test]
fn in_memory_without_bounds_the_frames_are_the_bound() {
    let mut random = Random(0xb0_0b5);
    for seed in 0..50_000 {
        let rows = random_rows(&mut random);
        let mut rules = ModuleRows {
            base: Addr::new(0),
            rows: &rows,
        };
        let mut frames = [Frame::from_raw(0); 64];
        let walk = walk(
            start(&mut random),
            &Everywhere(seed << 20),
            &mut rules,
            &mut frames,
        );
        assert!(walk.depth <= frames.len());
    }
}
