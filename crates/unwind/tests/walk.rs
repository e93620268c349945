//! The walker, by tables: an array of words is a stack.

mod common;

use std::ops::ControlFlow;

use common::{Words, call, rows};
use leaktap_memory::Addr;
use leaktap_unwind::{
    Cfa, End, Frame, ModuleRows, Rule, SavedBp, Start, Step, Visited, Walk, walk, walk_with,
};

const STACK: u64 = 0x7000;

/// What each function of the tests' module does; its code is the 0x100 bytes from its start.
const CODE: &[(u32, Option<Step>)] = &[
    (
        LEAF,
        Some(Step::Call {
            cfa: Cfa::Sp(8),
            bp: SavedBp::Unchanged,
        }),
    ),
    (
        SP24,
        Some(Step::Call {
            cfa: Cfa::Sp(24),
            bp: SavedBp::Unchanged,
        }),
    ),
    (
        FRAMED,
        Some(Step::Call {
            cfa: Cfa::Bp(16),
            bp: SavedBp::AtCfa(-16),
        }),
    ),
    (NO_CFI, None),
    (
        REALIGNED,
        Some(Step::Call {
            cfa: Cfa::AtBp { at: -8, plus: 0 },
            bp: SavedBp::AtBp(0),
        }),
    ),
    (
        SAVED_SP,
        Some(Step::Call {
            cfa: Cfa::AtSp { at: 8, plus: 8 },
            bp: SavedBp::AtSp(0),
        }),
    ),
    (
        PLT,
        Some(Step::Call {
            cfa: Cfa::Plt {
                offset: 8,
                from: 11,
            },
            bp: SavedBp::Unchanged,
        }),
    ),
    (
        RESTORER,
        Some(Step::SignalFrame {
            ip: 16,
            sp: 8,
            bp: 0,
        }),
    ),
    (START, Some(Step::End)),
    (UNKNOWN, Some(Step::Unsupported)),
    (
        LOSES_BP,
        Some(Step::Call {
            cfa: Cfa::Sp(8),
            bp: SavedBp::Lost,
        }),
    ),
    (
        SHRINKS,
        Some(Step::Call {
            cfa: Cfa::Sp(0),
            bp: SavedBp::Unchanged,
        }),
    ),
    (
        SWITCHES,
        Some(Step::Call {
            cfa: Cfa::Bp(16),
            bp: SavedBp::AtBp(0),
        }),
    ),
];
const LEAF: u32 = 0x100;
const SP24: u32 = 0x200;
const FRAMED: u32 = 0x300;
const NO_CFI: u32 = 0x400;
const REALIGNED: u32 = 0x500;
const SAVED_SP: u32 = 0x600;
const PLT: u32 = 0x700;
const RESTORER: u32 = 0x800;
const START: u32 = 0x900;
const UNKNOWN: u32 = 0xa00;
const LOSES_BP: u32 = 0xb00;
const SHRINKS: u32 = 0xc00;
const SWITCHES: u32 = 0xd00;

const BASE: u64 = 0x40_0000;

/// A return address in the middle of a function.
const fn ret(function: u32) -> u64 {
    BASE + function as u64 + 0x20
}

/// Walks from `first`, rsp at the first word of `stack`.
fn walked(first: u32, bp: u64, stack: &[u64]) -> (Vec<u64>, End) {
    let mut frames = [Frame::from_raw(0); 16];
    let Walk { depth, end } = walk_into(&mut frames, first, bp, stack);
    (
        frames[..depth].iter().map(|frame| frame.raw()).collect(),
        end,
    )
}

fn walk_into(frames: &mut [Frame], first: u32, bp: u64, stack: &[u64]) -> Walk {
    let table: Vec<_> = CODE
        .iter()
        .map(|&(at, step)| (at, step.map(Rule::pack)))
        .collect();
    let rows = rows(&table);
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: &rows,
    };
    let mem = Words {
        base: STACK,
        words: stack.to_vec(),
    };
    let start = Start {
        ip: Addr::new(ret(first)),
        sp: Addr::new(STACK),
        bp,
    };
    walk(start, &mem, &mut rules, frames)
}

const fn marked(frame: u64) -> u64 {
    frame | 1 << 63
}

#[test]
fn sp_based_frames_lead_to_the_root() {
    let stack = [1, 2, ret(LEAF), ret(SP24), 3, 4, ret(START)];
    let frames = [ret(SP24), ret(LEAF), ret(SP24), ret(START)];
    assert_eq!(walked(SP24, 0, &stack), (frames.to_vec(), End::Root));
}

#[test]
fn bp_based_frames_restore_rbp() {
    let stack = [1, STACK + 40, ret(LEAF), ret(FRAMED), 7, 0xdead, ret(START)];
    let frames = [ret(FRAMED), ret(LEAF), ret(FRAMED), ret(START)];
    assert_eq!(
        walked(FRAMED, STACK + 8, &stack),
        (frames.to_vec(), End::Root)
    );
}

#[test]
fn a_realigned_stack_is_left_by_the_saved_cfa() {
    // rbp at word 3; the CFA, words 6 and up, is kept below it.
    let stack = [1, 2, STACK + 48, 0xdead_0000, 5, ret(START), 7];
    let frames = [ret(REALIGNED), ret(START)];
    assert_eq!(
        walked(REALIGNED, STACK + 24, &stack),
        (frames.to_vec(), End::Root)
    );
}

#[test]
fn a_saved_rsp_and_an_rbp_at_rsp_are_followed() {
    let stack = [STACK + 40, STACK + 24, 1, ret(FRAMED), 2, 0, ret(START)];
    let frames = [ret(SAVED_SP), ret(FRAMED), ret(START)];
    assert_eq!(
        walked(SAVED_SP, 0xdead, &stack),
        (frames.to_vec(), End::Root)
    );
}

#[test]
fn a_signal_interrupts_an_instruction_of_the_linkage_table() {
    // [bp, sp, ip] is the signal frame; the slot's push has happened from its byte 11 on.
    for (offset, caller_at) in [(0_u64, 4), (10, 4), (11, 5), (15, 5)] {
        let ip = BASE + u64::from(PLT) + offset;
        let mut stack = [STACK + 48, STACK + 32, ip, 0, 0, 0, 0, ret(START)];
        stack[caller_at] = ret(FRAMED);
        let frames = [
            ret(RESTORER),
            Frame::interrupted_at(Addr::new(ip)).raw(),
            ret(FRAMED),
            ret(START),
        ];
        assert_eq!(
            walked(RESTORER, 0, &stack),
            (frames.to_vec(), End::Root),
            "byte {offset}"
        );
    }
}

#[test]
fn an_interrupted_first_instruction_belongs_to_its_function() {
    let ip = BASE + u64::from(LEAF);
    let stack = [0, STACK + 24, ip, ret(START)];
    let frames = [
        ret(RESTORER),
        Frame::interrupted_at(Addr::new(ip)).raw(),
        ret(START),
    ];
    assert_eq!(walked(RESTORER, 0, &stack), (frames.to_vec(), End::Root));
}

#[test]
fn a_handler_may_run_on_a_stack_above_the_interrupted_one() {
    let words = vec![ret(START), 0, 0, STACK, BASE + u64::from(LEAF)];
    let rows = rows(&[
        (LEAF, Some(call(Cfa::Sp(8), SavedBp::Unchanged))),
        (
            RESTORER,
            Some(Rule::pack(Step::SignalFrame {
                ip: 16,
                sp: 8,
                bp: 0,
            })),
        ),
        (START, Some(Rule::pack(Step::End))),
    ]);
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: &rows,
    };
    let mem = Words { base: STACK, words };
    let start = Start {
        ip: Addr::new(ret(RESTORER)),
        sp: Addr::new(STACK + 16),
        bp: 0,
    };
    let mut seen = Vec::new();
    let end = walk_with(start, &mem, &mut rules, |visited: Visited| {
        seen.push((
            visited.frame.lookup().get() - BASE,
            visited.sp.get() - STACK,
            visited.signal,
        ));
        ControlFlow::Continue(())
    });
    assert_eq!(end, End::Root);
    let expected = [(0x81f, 16, false), (0x100, 0, true), (0x91f, 8, false)];
    assert_eq!(seen, expected);
}

#[test]
fn a_stack_switch_by_rbp_may_go_down_but_not_for_ever() {
    // Two frames whose rbps lead to each other.
    let stack = [STACK + 16, ret(SWITCHES), STACK, ret(SWITCHES)];
    let mut frames = [Frame::from_raw(0); 100];
    let walk = walk_into(&mut frames, SWITCHES, STACK + 16, &stack);
    assert_eq!(walk.end, End::Stuck);
    assert!(walk.depth > 16 && walk.depth < 100);
}

#[test]
fn without_cfi_the_frame_pointer_leads_on_and_its_frames_are_marked() {
    let stack = [1, 2, STACK + 40, ret(NO_CFI), 3, 0, ret(LEAF), ret(START)];
    let frames = [
        ret(NO_CFI),
        marked(ret(NO_CFI)),
        marked(ret(LEAF)),
        ret(START),
    ];
    assert_eq!(
        walked(NO_CFI, STACK + 16, &stack),
        (frames.to_vec(), End::Root)
    );
}

/// But where nothing has led to it, it is any number: musl's code has no frame pointers.
#[test]
fn a_null_frame_pointer_is_the_root_at_the_end_of_a_chain() {
    assert_eq!(walked(NO_CFI, 0, &[]), (vec![ret(NO_CFI)], End::NoRule));
    let stack = [1, 2, 0, ret(NO_CFI)];
    let frames = [ret(NO_CFI), marked(ret(NO_CFI))];
    assert_eq!(
        walked(NO_CFI, STACK + 16, &stack),
        (frames.to_vec(), End::Root)
    );
}

#[test]
fn walks_that_cannot_go_on_say_why() {
    let no_user_address = 0xffff_ffff_ff60_0000;
    let cases: &[(u32, u64, &[u64], End)] = &[
        (LEAF, 0, &[0], End::Root),
        (LEAF, 0, &[], End::Unreadable),
        (LEAF, 0, &[no_user_address], End::NoRule),
        (LEAF, 0, &[1], End::NoRule),
        (FRAMED, STACK + 8, &[1, 2], End::Unreadable),
        (FRAMED, STACK + 4, &[1, 2, 3], End::Stuck),
        (UNKNOWN, 0, &[], End::Unsupported),
        (SHRINKS, 0, &[ret(START)], End::Stuck),
        (NO_CFI, STACK - 8, &[1, 2, 3], End::NoRule),
        (NO_CFI, STACK + 4, &[1, 2, 3], End::NoRule),
        (NO_CFI, STACK + (9 << 20), &[1, 2, 3], End::NoRule),
        (NO_CFI, STACK + 8, &[1, 2, no_user_address], End::NoRule),
        (NO_CFI, STACK + 8, &[1, 2, 0], End::NoRule),
        (NO_CFI, STACK + 8, &[1, 2, 0x4242], End::NoRule),
        (NO_CFI, STACK + 8, &[1, 2], End::Unreadable),
    ];
    for &(first, bp, stack, end) in cases {
        assert_eq!(
            walked(first, bp, stack),
            (vec![ret(first)], end),
            "{first:#x} {stack:x?}"
        );
    }
}

#[test]
fn an_rbp_that_was_lost_only_matters_if_it_is_needed() {
    let fine = [ret(LEAF), ret(START)];
    let frames = [ret(LOSES_BP), ret(LEAF), ret(START)];
    assert_eq!(walked(LOSES_BP, 0, &fine), (frames.to_vec(), End::Root));
    let frames = vec![ret(LOSES_BP), ret(FRAMED)];
    assert_eq!(
        walked(LOSES_BP, 0, &[ret(FRAMED)]),
        (frames, End::Unsupported)
    );
    let frames = vec![ret(LOSES_BP), ret(NO_CFI)];
    assert_eq!(walked(LOSES_BP, 0, &[ret(NO_CFI)]), (frames, End::NoRule));
}

#[test]
fn an_rbp_that_no_frame_needs_is_not_read() {
    // FRAMED's caller's rbp lies at its CFA - 16, and nobody asks for it.
    let rows = rows(&[
        (LEAF, Some(call(Cfa::Sp(8), SavedBp::AtCfa(-0x1000)))),
        (START, Some(Rule::pack(Step::End))),
    ]);
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: &rows,
    };
    let mem = Words {
        base: STACK,
        words: vec![ret(START)],
    };
    let start = Start {
        ip: Addr::new(ret(LEAF)),
        sp: Addr::new(STACK),
        bp: 0,
    };
    let mut frames = [Frame::from_raw(0); 4];
    let walk = walk(start, &mem, &mut rules, &mut frames);
    assert_eq!(
        walk,
        Walk {
            depth: 2,
            end: End::Root
        }
    );
}

#[test]
fn too_deep_means_that_there_was_one_more() {
    let stack = [ret(LEAF), ret(LEAF), ret(START)];
    for (room, end) in [
        (0, End::TooDeep),
        (3, End::TooDeep),
        (4, End::Root),
        (5, End::Root),
    ] {
        let mut frames = vec![Frame::from_raw(0); room];
        let walk = walk_into(&mut frames, LEAF, 0, &stack);
        assert_eq!(
            walk,
            Walk {
                depth: room.min(4),
                end
            }
        );
    }
}

#[test]
fn a_null_start_is_an_empty_stack() {
    let mut rules = ModuleRows {
        base: Addr::new(0),
        rows: &[],
    };
    let mem = Words {
        base: STACK,
        words: Vec::new(),
    };
    let start = Start {
        ip: Addr::new(0),
        sp: Addr::new(STACK),
        bp: 0,
    };
    let walk = walk(start, &mem, &mut rules, &mut [Frame::from_raw(0)]);
    assert_eq!(
        walk,
        Walk {
            depth: 0,
            end: End::Root
        }
    );
}

#[test]
fn a_stopped_thread_is_looked_up_where_it_is() {
    let start = Start::stopped_at(Addr::new(BASE + u64::from(LEAF)), Addr::new(STACK), 0);
    assert_eq!(
        Frame::returning_to(start.ip).lookup(),
        Addr::new(BASE + u64::from(LEAF))
    );
}
