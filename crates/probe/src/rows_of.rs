//! How to unwind through the code of a file.

use std::ops::Range;

use leaktap_image::{Cfi, ElfFile, Segment, Symbol};
use leaktap_memory::Svma;
use leaktap_unwind::{
    Built, Cfa, CfiSections, Code, SavedBp, Step, rows_with_code, signal_returns,
};

use crate::extents::sections;

/// Go's functions that call C code on another stack (runtime/asm_amd64.s, sys_linux_amd64.s): the
/// first leaves rbp as it was in its caller, so that the caller is left out.
const SWITCHES: [&str; 5] = [
    "runtime.asmcgocall.abi0",
    "runtime.systemstack.abi0",
    "runtime.callCgoMmap.abi0",
    "runtime.callCgoMunmap.abi0",
    "runtime.callCgoSigaction.abi0",
];

/// Go's first function, to which nobody returns (runtime/asm_amd64.s).
const FIRST: &str = "runtime.rt0_go.abi0";

/// The rows of a file, by its call frame information, and by its code where that says nothing.
pub(crate) fn rows_of(file: &ElfFile) -> Built {
    let cfi = file.cfi();
    let returns = if is_libc(file) {
        code_returns(file)
    } else {
        Vec::new()
    };
    let instead = instead(file, &cfi);
    let sections = CfiSections {
        instead: &instead,
        signal_returns: &returns,
        ..sections(&cfi)
    };
    rows_with_code(&sections, &CodeOf(file))
}

/// Code whose entries do not say how to get to its caller: what switches stacks in Go, where rbp
/// is a frame pointer all the while, and where contexts return to, which nobody has called.
fn instead(file: &ElfFile, cfi: &Cfi) -> Vec<(Range<Svma>, Step)> {
    let by_frame_pointer = Step::Call {
        cfa: Cfa::Bp(16),
        bp: SavedBp::AtCfa(-16),
    };
    let symbols = SWITCHES.iter().flat_map(|name| file.functions(name));
    let range = |symbol: Symbol| symbol.svma..Svma(symbol.svma.0.saturating_add(symbol.size));
    let switches = symbols.map(|symbol| (range(symbol), by_frame_pointer));
    let first = file.functions(FIRST).into_iter();
    let first = first.map(|symbol| (range(symbol), Step::End));
    let context = file.context_start().map(|start| {
        let functions = leaktap_unwind::functions_at(&sections(cfi), &[start]);
        let end = functions
            .into_iter()
            .flatten()
            .map(|range| range.end)
            .next();
        // Its first byte is a return address, and is looked up by the one before.
        let before = Svma(start.0.saturating_sub(1));
        (
            before..end.unwrap_or(Svma(start.0.saturating_add(1))),
            Step::End,
        )
    });
    switches.chain(first).chain(context).collect()
}

/// The code of a file, where nothing describes it.
struct CodeOf<'a>(&'a ElfFile);

impl Code for CodeOf<'_> {
    fn ranges(&self) -> Vec<Range<Svma>> {
        self.0.code_ranges()
    }

    fn bytes(&self, range: &Range<Svma>) -> Option<Vec<u8>> {
        let len = range.end.0.checked_sub(range.start.0)?;
        self.0.bytes_at(range.start, usize::try_from(len).ok()?)
    }

    fn functions(&self) -> Vec<Svma> {
        self.0.function_starts()
    }

    fn labels(&self) -> Vec<Svma> {
        self.0.labels()
    }

    fn entry(&self) -> Option<Svma> {
        Some(self.0.entry()).filter(|entry| *entry != Svma(0))
    }

    fn debug_frame(&self) -> Option<Vec<u8>> {
        self.0.separate_debug_frame()
    }
}

/// True of a file that defines the code signal handlers return to.
fn is_libc(file: &ElfFile) -> bool {
    file.interpreter().is_none() && !file.functions("sigaction").is_empty()
}

fn code_returns(file: &ElfFile) -> Vec<Svma> {
    let read = |segment: &Segment| {
        let start = Svma(segment.svma);
        let code = file.bytes_at(start, usize::try_from(segment.file_size).ok()?)?;
        Some(signal_returns(&code, start))
    };
    let executable = file.segments().iter().filter(|segment| segment.exec);
    executable.filter_map(read).flatten().collect()
}
