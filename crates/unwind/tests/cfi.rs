//! Rows from call frame information written by hand, byte by byte.

mod common;

use leaktap_memory::{Addr, Svma};
use leaktap_testing::Random;
use leaktap_unwind::{Built, Cfa, CfiSections, Found, ModuleRows, SavedBp, Step, rows};

/// Rsp + 8, return address below: what every x86-64 CIE begins with.
const AT_ENTRY: &[u8] = &[0x0c, 7, 8, 0x80 | 16, 1];

/// Opcodes of DWARF 5, section 7.24.
const ADVANCE: u8 = 0x40;
const OFFSET_RBP: u8 = 0x80 | 6;
const RESTORE_RBP: u8 = 0xc0 | 6;
const UNDEFINED: u8 = 0x07;
const REGISTER: u8 = 0x09;
const REMEMBER: u8 = 0x0a;
const RESTORE_STATE: u8 = 0x0b;
const DEF_CFA: u8 = 0x0c;
const DEF_CFA_REGISTER: u8 = 0x0d;
const DEF_CFA_OFFSET: u8 = 0x0e;
const DEF_CFA_EXPRESSION: u8 = 0x0f;
const EXPRESSION: u8 = 0x10;

/// A section under construction.
#[derive(Clone, Default)]
struct Section {
    bytes: Vec<u8>,
    /// `.debug_frame` rather than `.eh_frame`.
    debug: bool,
    /// 64-bit DWARF.
    wide: bool,
    cie: usize,
}

impl Section {
    fn eh() -> Section {
        Section::default().cie(b"zR", AT_ENTRY)
    }

    fn debug(wide: bool) -> Section {
        Section {
            debug: true,
            wide,
            ..Section::default()
        }
        .cie(b"", AT_ENTRY)
    }

    fn entry(&mut self, id: u64, body: &[u8]) {
        let wide_id = self.wide && self.debug;
        let length = body.len() as u64 + if wide_id { 8 } else { 4 };
        if self.wide {
            self.bytes.extend(u32::MAX.to_le_bytes());
            self.bytes.extend(length.to_le_bytes());
        } else {
            self.bytes.extend((length as u32).to_le_bytes());
        }
        self.bytes
            .extend(&id.to_le_bytes()[..if wide_id { 8 } else { 4 }]);
        self.bytes.extend(body);
    }

    fn cie(mut self, augmentation: &[u8], program: &[u8]) -> Section {
        self.cie = self.bytes.len();
        let mut body = vec![if self.debug { 4 } else { 1 }];
        body.extend(augmentation);
        body.push(0);
        if self.debug {
            body.extend([8, 0]);
        }
        body.extend([1, 0x78, 16]);
        if augmentation.contains(&b'R') {
            body.extend([1, 0]);
        }
        body.extend(program);
        self.entry(if self.debug { u64::MAX } else { 0 }, &body);
        self
    }

    fn fde(mut self, start: u64, len: u64, program: &[u8]) -> Section {
        let mut body = start.to_le_bytes().to_vec();
        body.extend(len.to_le_bytes());
        if !self.debug {
            body.push(0);
        }
        body.extend(program);
        let length = if self.wide { 12 } else { 4 };
        let id = if self.debug {
            self.cie
        } else {
            self.bytes.len() + length - self.cie
        };
        self.entry(id as u64, &body);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Section {
        self.bytes.extend(bytes);
        self
    }

    fn rows(&self) -> Built {
        if self.debug {
            build(None, Some(self))
        } else {
            build(Some(self), None)
        }
    }
}

const BASE: u64 = 0x40_0000;

fn build(eh: Option<&Section>, debug: Option<&Section>) -> Built {
    rows(&CfiSections {
        base: Svma(BASE),
        eh_frame: eh.map(|section| (Svma(BASE + 0x10_0000), &*section.bytes)),
        debug_frame: debug.map(|section| &*section.bytes),
        ..CfiSections::default()
    })
}

/// What holds at a byte of the module.
fn at(built: &Built, offset: u64) -> Option<Step> {
    let module = ModuleRows {
        base: Addr::new(BASE),
        rows: &built.rows,
    };
    match module.find(Addr::new(BASE + offset)) {
        Found::Rule(rule) => Some(rule.unpack()),
        Found::NoCfi => None,
    }
}

#[track_caller]
fn assert_steps(built: &Built, expected: &[(u64, Option<Step>)]) {
    for &(offset, step) in expected {
        assert_eq!(at(built, offset), step, "byte {offset:#x}");
    }
}

const fn sp(offset: i32) -> Option<Step> {
    Some(Step::Call {
        cfa: Cfa::Sp(offset),
        bp: SavedBp::Unchanged,
    })
}

const fn call(cfa: Cfa, bp: SavedBp) -> Option<Step> {
    Some(Step::Call { cfa, bp })
}

/// push rbp; mov rbp, rsp; ...; early return; ...; return.
const FRAME_POINTER: &[u8] = &[
    ADVANCE | 1,
    DEF_CFA_OFFSET,
    16,
    OFFSET_RBP,
    2,
    ADVANCE | 3,
    DEF_CFA_REGISTER,
    6,
    ADVANCE | 16,
    REMEMBER,
    DEF_CFA,
    7,
    8,
    RESTORE_RBP,
    ADVANCE | 1,
    RESTORE_STATE,
    ADVANCE | 16,
    DEF_CFA,
    7,
    8,
];

const FRAME_POINTER_STEPS: &[(u64, Option<Step>)] = &[
    (0xfff, None),
    (0x1000, sp(8)),
    (0x1001, call(Cfa::Sp(16), SavedBp::AtCfa(-16))),
    (0x1004, call(Cfa::Bp(16), SavedBp::AtCfa(-16))),
    (0x1013, call(Cfa::Bp(16), SavedBp::AtCfa(-16))),
    (0x1014, sp(8)),
    (0x1015, call(Cfa::Bp(16), SavedBp::AtCfa(-16))),
    (0x1025, call(Cfa::Sp(8), SavedBp::AtCfa(-16))),
    (0x1026, None),
];

#[test]
fn a_function_with_early_return_in_all_kinds_of_section() {
    for section in [
        Section::eh(),
        Section {
            wide: true,
            ..Section::default()
        }
        .cie(b"zR", AT_ENTRY),
        Section::debug(false),
        Section::debug(true),
    ] {
        let built = section.fde(BASE + 0x1000, 0x26, FRAME_POINTER).rows();
        assert_eq!(built.skipped, 0);
        assert_steps(&built, FRAME_POINTER_STEPS);
    }
}

#[test]
fn expressions_and_registers() {
    let realigned = &[
        DEF_CFA_EXPRESSION,
        3,
        0x76,
        0x78,
        0x06,
        EXPRESSION,
        6,
        2,
        0x76,
        0,
    ];
    let openssl = &[DEF_CFA_EXPRESSION, 5, 0x77, 0xb8, 1, 0x06, 0x23];
    let openssl = [openssl.as_slice(), &[8]].concat();
    let openssl = [&[DEF_CFA_EXPRESSION, 6], &openssl[2..]].concat();
    let plt = &[
        DEF_CFA_EXPRESSION,
        11,
        0x77,
        8,
        0x80,
        0,
        0x3f,
        0x1a,
        0x3b,
        0x2a,
        0x33,
        0x24,
        0x22,
    ];
    let via_r10 = &[DEF_CFA, 10, 0];
    let in_r11 = &[REGISTER, 6, 11];
    let root = &[UNDEFINED, 16];
    let bp_plus = &[DEF_CFA_EXPRESSION, 2, 0x76, 16];
    let unknown = &[DEF_CFA_EXPRESSION, 2, 0x77, 0];
    let unknown = [unknown.as_slice(), &[]].concat();
    let deref_twice = &[DEF_CFA_EXPRESSION, 4, 0x77, 0, 0x06, 0x06];
    let cases: [(&[u8], Option<Step>); 9] = [
        (
            realigned,
            call(Cfa::AtBp { at: -8, plus: 0 }, SavedBp::AtBp(0)),
        ),
        (
            &openssl,
            call(Cfa::AtSp { at: 184, plus: 8 }, SavedBp::Unchanged),
        ),
        (
            plt,
            call(
                Cfa::Plt {
                    offset: 8,
                    from: 11,
                },
                SavedBp::Unchanged,
            ),
        ),
        (via_r10, Some(Step::Unsupported)),
        (in_r11, call(Cfa::Sp(8), SavedBp::Lost)),
        (root, Some(Step::End)),
        (bp_plus, call(Cfa::Bp(16), SavedBp::Unchanged)),
        (&unknown, sp(0)),
        (deref_twice, Some(Step::Unsupported)),
    ];
    for (program, step) in cases {
        let built = Section::eh().fde(BASE + 0x1000, 16, program).rows();
        assert_eq!(built.skipped, 0);
        assert_steps(&built, &[(0x1000, step), (0x100f, step), (0x1010, None)]);
    }
}

/// As glibc's `__restore_rt` (`sysdeps/unix/sysv/linux/x86_64/libc_sigaction.c`), which describes
/// the byte before it, too.
#[test]
fn a_signal_frame_is_one_only_with_the_augmentation() {
    let program = [
        DEF_CFA_EXPRESSION,
        4,
        0x77,
        0xa0,
        1,
        0x06,
        EXPRESSION,
        6,
        3,
        0x77,
        0xf8,
        0,
        EXPRESSION,
        7,
        3,
        0x77,
        0xa0,
        1,
        EXPRESSION,
        16,
        3,
        0x77,
        0xa8,
        1,
    ];
    for (augmentation, step) in [
        (b"zRS".as_slice(), Step::KERNEL_SIGNAL_FRAME),
        (b"zR", Step::Unsupported),
    ] {
        let section = Section::default().cie(augmentation, &[]);
        let built = section.fde(BASE + 0xfff, 10, &program).rows();
        assert_steps(
            &built,
            &[(0xfff, Some(step)), (0x1008, Some(step)), (0x1009, None)],
        );
    }
}

#[test]
fn debug_frame_fills_what_eh_frame_leaves_and_code_bytes_the_rest() {
    let eh = Section::eh().fde(BASE + 0x1000, 16, &[DEF_CFA_OFFSET, 24]);
    let debug = Section::debug(false)
        .fde(BASE + 0xff0, 32, &[DEF_CFA_OFFSET, 32])
        .fde(BASE + 0x2000, 16, &[])
        .fde(0, 0x4000, &[DEF_CFA_OFFSET, 40]);
    let built = rows(&CfiSections {
        base: Svma(BASE),
        eh_frame: Some((Svma(BASE + 0x10_0000), &eh.bytes)),
        debug_frame: Some(&debug.bytes),
        signal_returns: &[
            Svma(BASE + 0x2004),
            Svma(BASE + 0x3000),
            Svma(0),
            Svma(u64::MAX),
        ],
        ..CfiSections::default()
    });
    assert_eq!(built.skipped, 0);
    let signal = Some(Step::KERNEL_SIGNAL_FRAME);
    let expected = [
        (0xfef, None),
        (0xff0, sp(32)),
        (0x1000, sp(24)),
        (0x100f, sp(24)),
        (0x1010, None),
        (0x2003, sp(8)),
        (0x200f, sp(8)),
        (0x2ffe, None),
        (0x2fff, signal),
        (0x3008, signal),
        (0x3009, None),
    ];
    assert_steps(&built, &expected);
}

#[test]
fn what_cannot_be_read_is_counted_and_the_rest_is_used() {
    let bad_cie = [
        &7_u32.to_le_bytes()[..],
        &0_u32.to_le_bytes(),
        &[99, b'q', 0],
    ]
    .concat();
    let zero = [0; 4];
    let mut section = Section::eh()
        .fde(BASE + 0x1000, 16, &[])
        .raw(&bad_cie)
        .raw(&zero)
        .fde(
            BASE + 0x2000,
            16,
            &[ADVANCE | 4, DEF_CFA_OFFSET, 16, ADVANCE | 4, 0x3b],
        )
        .fde(BASE - 0x1000, 16, &[])
        .fde(BASE + (5 << 32), 16, &[])
        .fde(BASE + 0x3000, 16, &[]);
    section = section.raw(&[200, 0, 0, 0, 1, 2]);
    let built = section.rows();
    assert_eq!(built.skipped, 4);
    let expected = [
        (0x1000, sp(8)),
        (0x2000, sp(8)),
        (0x2004, sp(16)),
        (0x2007, sp(16)),
        (0x2008, Some(Step::Unsupported)),
        (0x200f, Some(Step::Unsupported)),
        (0x2010, None),
        (0x3000, sp(8)),
    ];
    assert_steps(&built, &expected);
}

#[test]
fn damaged_sections_never_panic_and_rows_stay_sorted() {
    let whole = Section::eh()
        .fde(BASE + 0x1000, 0x26, FRAME_POINTER)
        .fde(BASE + 0x1010, 0x26, FRAME_POINTER)
        .cie(b"zRS", &[DEF_CFA_EXPRESSION, 4, 0x77, 0xa0, 1, 0x06])
        .fde(BASE + 0x2000, 0x100, FRAME_POINTER);
    let mut random = Random(0x1ea7_7a95);
    for _ in 0..20_000 {
        let mut section = whole.clone();
        for _ in 0..1 + random.below(8) {
            let at = random.below(section.bytes.len() as u64) as usize;
            section.bytes[at] = random.number() as u8;
        }
        for debug in [false, true] {
            section.debug = debug;
            let built = section.rows();
            assert!(
                built
                    .rows
                    .windows(2)
                    .all(|pair| pair[0].start() < pair[1].start())
            );
        }
    }
}
