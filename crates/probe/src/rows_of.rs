//! How to unwind through the code of a file.

use std::ops::Range;

use leaktap_image::{ElfFile, Segment};
use leaktap_memory::Svma;
use leaktap_unwind::{Built, CfiSections, Code, rows_with_code, signal_returns};

use crate::extents::sections;

/// The rows of a file, by its call frame information, and by its code where that says nothing.
pub(crate) fn rows_of(file: &ElfFile) -> Built {
    let cfi = file.cfi();
    let returns = if is_libc(file) {
        code_returns(file)
    } else {
        Vec::new()
    };
    let sections = CfiSections {
        signal_returns: &returns,
        ..sections(&cfi)
    };
    rows_with_code(&sections, &CodeOf(file))
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
