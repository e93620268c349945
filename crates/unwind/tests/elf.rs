//! The rows of real files, compared with gimli's own evaluation at many pcs.
#![allow(clippy::unwrap_used)]

use gimli::{
    BaseAddresses, CfaRule, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext,
    UnwindSection, UnwindTableRow, X86_64,
};
use leaktap_memory::{Addr, Svma};
use leaktap_unwind::{Built, Cfa, CfiSections, Found, ModuleRows, SavedBp, Step, rows};
use object::{Object, ObjectSection, ObjectSegment};

type Bytes<'a> = EndianSlice<'a, LittleEndian>;

struct File {
    base: u64,
    address: u64,
    bytes: Vec<u8>,
}

impl File {
    fn open(path: &str) -> File {
        let data = std::fs::read(path).unwrap();
        let elf = object::File::parse(&*data).unwrap();
        let section = elf.section_by_name(".eh_frame").unwrap();
        File {
            base: elf
                .segments()
                .map(|segment| segment.address())
                .min()
                .unwrap()
                & !0xfff,
            address: section.address(),
            bytes: section.data().unwrap().to_vec(),
        }
    }

    fn rows(&self) -> Built {
        rows(&CfiSections {
            base: Svma(self.base),
            eh_frame: Some((Svma(self.address), &self.bytes)),
            ..CfiSections::default()
        })
    }
}

/// What gimli says of a pc, for the plain rules; `None` for the rest.
fn expected(row: &UnwindTableRow<usize>) -> Option<Step> {
    let cfa = match row.cfa() {
        CfaRule::RegisterAndOffset {
            register: X86_64::RSP,
            offset,
        } => Cfa::Sp(*offset as i32),
        CfaRule::RegisterAndOffset {
            register: X86_64::RBP,
            offset,
        } => Cfa::Bp(*offset as i32),
        _ => return None,
    };
    let bp = match row.register(X86_64::RBP) {
        None | Some(RegisterRule::SameValue) => SavedBp::Unchanged,
        Some(RegisterRule::Offset(offset)) => SavedBp::AtCfa(offset as i32),
        _ => return None,
    };
    match row.register(X86_64::RA) {
        Some(RegisterRule::Undefined) => Some(Step::End),
        Some(RegisterRule::Offset(-8)) => Some(Step::Call { cfa, bp }),
        _ => None,
    }
}

/// Compares at the first and last pc of every row of every function, and counts what was compared.
fn compare(path: &str) -> usize {
    let file = File::open(path);
    let built = file.rows();
    assert_eq!(built.skipped, 0);
    let module = ModuleRows {
        base: Addr::new(file.base),
        rows: &built.rows,
    };
    let bases = BaseAddresses::default().set_eh_frame(file.address);
    let section = EhFrame::new(&file.bytes, LittleEndian);
    let mut context = UnwindContext::new();
    let mut entries = section.entries(&bases);
    let mut compared = 0;
    while let Some(entry) = entries.next().unwrap() {
        let gimli::CieOrFde::Fde(partial) = entry else {
            continue;
        };
        let fde = partial
            .parse(EhFrame::<Bytes<'_>>::cie_from_offset)
            .unwrap();
        let mut table = fde.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = table.next_row().unwrap() {
            let Some(step) = expected(row).filter(|_| row.start_address() < row.end_address())
            else {
                continue;
            };
            for pc in [row.start_address(), row.end_address() - 1] {
                let Found::Rule(rule) = module.find(Addr::new(pc)) else {
                    panic!("{path}: nothing at {pc:#x}");
                };
                assert_eq!(rule.unpack(), step, "{path} at {pc:#x}");
                compared += 1;
            }
        }
    }
    compared
}

#[test]
fn rows_of_this_binary_are_gimlis() {
    assert!(compare("/proc/self/exe") > 10_000);
}

#[test]
fn rows_of_libc_are_gimlis() {
    assert!(compare("/lib/x86_64-linux-gnu/libc.so.6") > 10_000);
}

/// glibc's `__restore_rt` is a signal frame, the linkage table has its own CFA, and almost all else
/// is plain.
#[test]
fn libc_has_its_special_frames_and_hardly_anything_unsupported() {
    let built = File::open("/lib/x86_64-linux-gnu/libc.so.6").rows();
    let count = |wanted: fn(&Step) -> bool| {
        let steps = built.rows.iter().filter_map(|row| match row.found() {
            Found::Rule(rule) => Some(rule.unpack()),
            Found::NoCfi => None,
        });
        steps.filter(wanted).count()
    };
    assert_eq!(count(|step| *step == Step::KERNEL_SIGNAL_FRAME), 1);
    assert_eq!(
        count(|step| matches!(
            step,
            Step::Call {
                cfa: Cfa::Plt { .. },
                ..
            }
        )),
        1
    );
    assert!(count(|step| *step == Step::End) > 0);
    assert!(count(|step| *step == Step::Unsupported) * 200 < built.rows.len());
}

#[test]
fn rows_are_sorted_and_neighbours_differ() {
    let built = File::open("/proc/self/exe").rows();
    for pair in built.rows.windows(2) {
        assert!(pair[0].start() < pair[1].start());
        assert_ne!(pair[0].found(), pair[1].found());
    }
}
