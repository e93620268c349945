//! Rows that are made from code are those that the compiler has written for it.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ops::Range;

use leaktap_memory::{Addr, Svma};
use leaktap_unwind::{
    Built, Cfa, CfiSections, Code, Found, ModuleRows, SavedBp, Step, functions, rows,
    rows_with_code,
};
use object::{Object, ObjectSection, ObjectSegment, SectionKind};

/// A file, with its call frame information, or as if it had none.
struct File {
    base: Svma,
    eh_frame: (Svma, Vec<u8>),
    code: Vec<(Svma, Vec<u8>)>,
    functions: Vec<Svma>,
}

impl File {
    fn open(path: &str) -> File {
        let data = std::fs::read(path).unwrap();
        let elf = object::File::parse(&*data).unwrap();
        let segments = elf.segments().map(|segment| segment.address());
        let base = Svma(segments.min().unwrap() & !0xfff);
        let read = |section: object::Section<'_, '_>| {
            (Svma(section.address()), section.data().unwrap().to_vec())
        };
        let code = elf
            .sections()
            .filter(|section| section.kind() == SectionKind::Text);
        let eh_frame = read(elf.section_by_name(".eh_frame").unwrap());
        let mut file = File {
            base,
            code: code.map(read).collect(),
            eh_frame,
            functions: Vec::new(),
        };
        let rows = rows(&file.sections()).rows;
        let rows = ModuleRows {
            base: Addr::new(base.0),
            rows: &rows,
        };
        // Not parts of one that are elsewhere.
        let is_called = |at: &Svma| match rows.find(Addr::new(at.0)) {
            Found::Rule(rule) => matches!(
                rule.unpack(),
                Step::Call {
                    cfa: Cfa::Sp(8),
                    ..
                }
            ),
            Found::NoCfi => false,
        };
        let functions = functions(&file.sections())
            .into_iter()
            .map(|range| range.start);
        file.functions = functions.filter(is_called).collect();
        file
    }

    fn sections(&self) -> CfiSections<'_> {
        let (at, bytes) = &self.eh_frame;
        CfiSections {
            base: self.base,
            eh_frame: Some((*at, bytes)),
            ..CfiSections::default()
        }
    }

    fn by_code(&self) -> Built {
        let sections = CfiSections {
            base: self.base,
            ..CfiSections::default()
        };
        rows_with_code(&sections, self)
    }
}

impl Code for File {
    fn ranges(&self) -> Vec<Range<Svma>> {
        let range = |(at, bytes): &(Svma, Vec<u8>)| *at..Svma(at.0 + bytes.len() as u64);
        self.code.iter().map(range).collect()
    }

    fn bytes(&self, range: &Range<Svma>) -> Option<Vec<u8>> {
        self.code.iter().find_map(|(at, bytes)| {
            let start = range.start.0.checked_sub(at.0)? as usize;
            let end = range.end.0.checked_sub(at.0)? as usize;
            Some(bytes.get(start..end)?.to_vec())
        })
    }

    fn functions(&self) -> Vec<Svma> {
        self.functions.clone()
    }

    fn labels(&self) -> Vec<Svma> {
        Vec::new()
    }

    fn entry(&self) -> Option<Svma> {
        None
    }

    fn debug_frame(&self) -> Option<Vec<u8>> {
        None
    }
}

/// How often rows from code say what a file's own say, by what became of them.
fn compare(path: &str) -> BTreeMap<&'static str, usize> {
    let file = File::open(path);
    let (own, derived) = (rows(&file.sections()), file.by_code());
    let derived = ModuleRows {
        base: Addr::new(file.base.0),
        rows: &derived.rows,
    };
    let mut counts = BTreeMap::new();
    for row in &own.rows {
        let at = file.base.0 + u64::from(row.start());
        let Found::Rule(rule) = row.found() else {
            continue;
        };
        let what = match (rule.unpack(), derived.find(Addr::new(at))) {
            (
                Step::Call {
                    cfa: Cfa::Sp(_) | Cfa::Bp(_),
                    ..
                },
                Found::NoCfi,
            ) => "nothing",
            (
                own @ Step::Call {
                    cfa: Cfa::Sp(_) | Cfa::Bp(_),
                    ..
                },
                Found::Rule(rule),
            ) => judge(own, rule.unpack()),
            _ => "special",
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

fn judge(own: Step, derived: Step) -> &'static str {
    let (
        Step::Call {
            cfa: own_cfa,
            bp: own_bp,
        },
        Step::Call { cfa, bp },
    ) = (own, derived)
    else {
        return "refused";
    };
    // Where rbp is still the caller's, a copy of it may be told.
    let same_bp = own_bp == bp || own_bp == SavedBp::Lost || bp == SavedBp::Unchanged;
    match (own_cfa, cfa) {
        _ if own_cfa == cfa && same_bp => "same",
        (Cfa::Sp(_), Cfa::Sp(_)) | (Cfa::Bp(_), Cfa::Bp(_)) => "wrong",
        _ if same_bp => "by another register",
        _ => "wrong",
    }
}

/// What differs is code that only exceptions and cancellations lead to, and assembly whose own
/// information is wrong.
fn nearly_all_same(path: &str) {
    let counts = compare(path);
    let count = |what| counts.get(what).copied().unwrap_or(0);
    let same = count("same");
    assert!(
        same > 1000 && count("wrong") * 2000 <= same,
        "{path}: {counts:?}"
    );
    let unknown = count("nothing") + count("refused");
    assert!(unknown * 50 <= same, "{path}: {counts:?}");
}

#[test]
fn rows_of_libc_from_its_code_are_its_own() {
    nearly_all_same("/lib/x86_64-linux-gnu/libc.so.6");
}

#[test]
fn rows_of_libm_from_its_code_are_its_own() {
    nearly_all_same("/lib/x86_64-linux-gnu/libm.so.6");
}

/// Code at 0x1000 of a file, of which nothing but that is known.
struct Bare(Vec<u8>, Option<Vec<u8>>);

impl Code for Bare {
    fn ranges(&self) -> Vec<Range<Svma>> {
        std::iter::once(Svma(0x1000)..Svma(0x1000 + self.0.len() as u64)).collect()
    }

    fn bytes(&self, range: &Range<Svma>) -> Option<Vec<u8>> {
        let [start, end] = [range.start, range.end].map(|at| (at.0 - 0x1000) as usize);
        Some(self.0[start..end].to_vec())
    }

    fn functions(&self) -> Vec<Svma> {
        Vec::new()
    }

    fn labels(&self) -> Vec<Svma> {
        Vec::new()
    }

    fn entry(&self) -> Option<Svma> {
        None
    }

    fn debug_frame(&self) -> Option<Vec<u8>> {
        self.1.clone()
    }
}

/// What is known at offsets of `code`, behind which there are 16 bytes of nothing.
fn known(code: &[&[u8]], offsets: &[u32]) -> Vec<Option<Step>> {
    let code = [&code.concat()[..], &[0xcc; 16]].concat();
    let built = rows_with_code(&CfiSections::default(), &Bare(code, None));
    let rows = ModuleRows {
        base: Addr::new(0),
        rows: &built.rows,
    };
    let step = |offset: &u32| match rows.find(Addr::new(0x1000 + u64::from(*offset))) {
        Found::Rule(rule) => {
            assert!(rule.is_derived());
            Some(rule.unpack())
        }
        Found::NoCfi => None,
    };
    offsets.iter().map(step).collect()
}

fn sp(offset: i32, bp: SavedBp) -> Option<Step> {
    Some(Step::Call {
        cfa: Cfa::Sp(offset),
        bp,
    })
}

const PUSH_BP: &[u8] = &[0x55];
const POP_BP: &[u8] = &[0x5d];
const RET: &[u8] = &[0xc3];
const NOP: &[u8] = &[0x90];
/// `call *%rax`.
const CALL: &[u8] = &[0xff, 0xd0];
/// `sub $72, %rsp` and `add $72, %rsp`.
const ROOM: [&[u8]; 2] = [&[0x48, 0x83, 0xec, 72], &[0x48, 0x83, 0xc4, 72]];

#[test]
fn pushes_room_and_data_in_rbp_are_followed() {
    // lea 16(%rsp), %rbp
    let lea: &[u8] = &[0x48, 0x8d, 0x6c, 0x24, 0x10];
    let code = [PUSH_BP, ROOM[0], lea, CALL, ROOM[1], POP_BP, RET];
    let saved = SavedBp::AtCfa(-16);
    let expected = [
        sp(8, SavedBp::Unchanged),
        sp(16, SavedBp::Unchanged),
        sp(88, SavedBp::Unchanged),
        sp(88, saved),
        sp(88, saved),
        sp(16, saved),
        sp(8, SavedBp::Unchanged),
    ];
    assert_eq!(known(&code, &[0, 1, 5, 10, 12, 16, 17]), expected);
}

#[test]
fn a_realigned_stack_is_left_by_the_frame_pointer() {
    // mov %rsp, %rbp; and $-64, %rsp; leave
    let align: [&[u8]; 3] = [&[0x48, 0x89, 0xe5], &[0x48, 0x83, 0xe4, 0xc0], &[0xc9]];
    let code = [PUSH_BP, align[0], align[1], CALL, align[2], RET];
    let by_bp = Some(Step::Call {
        cfa: Cfa::Bp(16),
        bp: SavedBp::AtCfa(-16),
    });
    let expected = [by_bp, sp(8, SavedBp::Unchanged)];
    assert_eq!(known(&code, &[8, 11]), expected);
}

#[test]
fn a_loop_that_touches_the_stack_ends_where_it_says() {
    // lea -0x5000(%rsp), %r11; 1: sub $0x1000, %rsp; orq $0, (%rsp); cmp %r11, %rsp; jne 1b
    let touch: [&[u8]; 5] = [
        &[0x4c, 0x8d, 0x9c, 0x24, 0x00, 0xb0, 0xff, 0xff],
        &[0x48, 0x81, 0xec, 0x00, 0x10, 0x00, 0x00],
        &[0x48, 0x83, 0x0c, 0x24, 0x00],
        &[0x4c, 0x39, 0xdc],
        &[0x75, 0xef],
    ];
    let leave: &[u8] = &[0x48, 0x81, 0xc4, 0x00, 0x50, 0x00, 0x00];
    let code = [&touch[..], &[CALL, leave, RET]].concat();
    let expected = [Some(Step::Unsupported), sp(0x5008, SavedBp::Unchanged)];
    assert_eq!(known(&code, &[15, 25]), expected);
}

#[test]
fn whoever_clears_rbp_is_the_first() {
    // xor %ebp, %ebp; and $-16, %rsp; call *%rax; hlt; an address is taken of it: lea (%rip), %rcx
    let first: [&[u8]; 3] = [&[0x31, 0xed], &[0x48, 0x83, 0xe4, 0xf0], &[0xf4]];
    let lea: &[u8] = &[0x48, 0x8d, 0x0d, 0xf0, 0xff, 0xff, 0xff];
    let code = [first[0], first[1], CALL, first[2], lea, RET];
    assert_eq!(known(&code, &[6]), [Some(Step::End)]);
    // With rbp saved before, it is a function like any other.
    let code = [PUSH_BP, first[0], CALL, POP_BP, RET];
    assert_eq!(known(&code, &[3]), [sp(16, SavedBp::AtCfa(-16))]);
}

/// A call that never returns is the last instruction of a function, and the next one begins right
/// behind it, or behind padding.
#[test]
fn what_is_behind_a_call_may_be_another_function() {
    for between in [10, 7] {
        // The call ends at 16, or there is padding up to there.
        let room = vec![NOP; between];
        let padding = vec![NOP; 10 - between];
        let code = [
            &[ROOM[0]][..],
            &room,
            &[CALL],
            &padding,
            &[PUSH_BP, CALL, POP_BP, RET],
        ];
        let expected = [sp(8, SavedBp::Unchanged), sp(16, SavedBp::Unchanged)];
        assert_eq!(known(&code.concat(), &[16, 17]), expected);
        // Or not: it goes on.
        let code = [
            &[ROOM[0]][..],
            &room,
            &[CALL],
            &padding,
            &[CALL, ROOM[1], RET],
        ]
        .concat();
        let first = [&[PUSH_BP, POP_BP][..], &[RET], &[NOP; 13]].concat();
        // From 40 on: call 0x1010, which is known to be a function by that.
        let call: &[u8] = &[0xe8, 0xe3, 0xff, 0xff, 0xff];
        let code = [&first[..], &code, &[NOP], &[call, RET]].concat();
        let expected = [sp(80, SavedBp::Unchanged), sp(8, SavedBp::Unchanged)];
        assert_eq!(known(&code, &[32, 40]), expected);
    }
}

#[test]
fn code_that_does_not_hold_together_is_refused() {
    // Returns with rsp elsewhere; a call of it says that it is a function.
    let wrong = [PUSH_BP, CALL, RET];
    let call: &[u8] = &[0xe8, 0xf7, 0xff, 0xff, 0xff];
    let code = [&wrong[..], &[call, RET]].concat();
    assert_eq!(known(&code, &[1]), [Some(Step::Unsupported)]);
    // Nothing says so: it is not known what that is.
    assert_eq!(known(&wrong, &[1]), [None]);
}

#[test]
fn bytes_of_any_kind_do_no_harm() {
    let mut random = leaktap_testing::Random(0xc0de);
    for _ in 0..300 {
        let len = 16 + random.below(2000);
        let code = (0..len).map(|_| random.number() as u8).collect();
        let built = rows_with_code(&CfiSections::default(), &Bare(code, None));
        assert!(built.rows.is_sorted_by_key(|row| row.start()));
    }
}

/// What a separate debug file says counts, and more than the code.
#[test]
fn call_frame_information_that_is_kept_apart_is_asked_for() {
    let entry = |id: u32, body: &[u8]| {
        let len = (body.len() + 4) as u32;
        [&len.to_le_bytes(), &id.to_le_bytes(), body].concat()
    };
    // CFA = rsp + 8, return address below it; then a function whose CFA is rsp + 32.
    let cie = entry(u32::MAX, &[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]);
    let range = [0x1000_u64, 400].map(u64::to_le_bytes).concat();
    let section = [cie, entry(0, &[&range[..], &[0x0e, 32]].concat())].concat();
    let code = [PUSH_BP, CALL, &[0x90; 400], RET].concat();
    let built = rows_with_code(&CfiSections::default(), &Bare(code, Some(section)));
    let rows = ModuleRows {
        base: Addr::new(0),
        rows: &built.rows,
    };
    let Found::Rule(rule) = rows.find(Addr::new(0x1001)) else {
        panic!("{built:?}");
    };
    assert_eq!(Some(rule.unpack()), sp(32, SavedBp::Unchanged));
    assert!(!rule.is_derived());
}
