//! Rows from call frame information (DWARF 5, section 6.4; LSB 5.0, chapter 10.6 for `.eh_frame`).
//!
//! `functions` reads the entries of a section, `convert` turns what an entry says of one pc into a
//! [`Step`], `spans` settles which entry a pc belongs to, and writes the rows. Where
//! no entry says anything, `holes` has `flow` find out from the code itself.

mod convert;
mod covering;
mod doubt;
mod flow;
mod frame_state;
mod functions;
mod holes;
mod signal_return;
mod spans;
#[cfg(target_arch = "x86_64")]
mod x86_64;

use std::ops::Range;

use gimli::{BaseAddresses, DebugFrame, EhFrame, LittleEndian};
use leaktap_memory::Svma;

use crate::{Row, Step};
use functions::Functions;
#[cfg(target_arch = "x86_64")]
use x86_64 as arch;

pub use covering::{functions, functions_at, may_unwind};
pub use holes::Code;
pub use signal_return::signal_returns;

/// The call frame information of one ELF file.
#[derive(Clone, Copy, Debug, Default)]
pub struct CfiSections<'a> {
    /// The lowest address of a loadable segment: rows count from here.
    pub base: Svma,
    /// Address and bytes of `.eh_frame`.
    pub eh_frame: Option<(Svma, &'a [u8])>,
    /// Bytes of `.debug_frame`, decompressed; used where `.eh_frame` says nothing.
    pub debug_frame: Option<&'a [u8]>,
    /// Address of `.text`, for pointers relative to it (no known linker makes them for x86-64).
    pub text: Option<Svma>,
    /// Address of `.got`, for pointers relative to it (likewise).
    pub got: Option<Svma>,
    /// Functions whose own entries are wrong, and how to get to their callers; without overlaps.
    pub instead: &'a [(Range<Svma>, Step)],
    /// Signal-return code as [`signal_returns`] finds it; used where the sections say nothing.
    pub signal_returns: &'a [Svma],
}

/// What the rows of a file came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Built {
    /// Sorted by start; no two neighbours say the same.
    pub rows: Vec<Row>,
    /// Entries that could not be read, wholly or in part; a section that ends inside an entry
    /// counts as one.
    pub skipped: usize,
}

/// Compiles the call frame information of a file.
///
/// Never fails and never panics: what cannot be read is skipped and counted.
pub fn rows(sections: &CfiSections<'_>) -> Built {
    compile(sections, None)
}

/// Compiles that, and makes rows for other functions from their `code`.
pub fn rows_with_code(sections: &CfiSections<'_>, code: &dyn Code) -> Built {
    compile(sections, Some(code))
}

fn compile(sections: &CfiSections<'_>, code: Option<&dyn Code>) -> Built {
    let mut functions = Functions::new(sections.base);
    let mut spans = Vec::new();
    let bases = base_addresses(sections);
    let found = functions.instead(sections.instead);
    spans::fill(&mut spans, found);
    if let Some((_, bytes)) = sections.eh_frame {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        let found = functions.read(&section, bytes, &bases);
        spans::fill(&mut spans, found);
    }
    if let Some(bytes) = sections.debug_frame {
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        let found = functions.read(&section, bytes, &bases);
        spans::fill(&mut spans, found);
    }
    let found = functions.signal_returns(sections.signal_returns);
    spans::fill(&mut spans, found);
    if let Some(code) = code {
        let mut holes = functions.holes(code, &spans);
        if holes.has_functions()
            && let Some(bytes) = code.debug_frame()
        {
            let mut section = DebugFrame::new(&bytes, LittleEndian);
            section.set_address_size(8);
            let found = functions.read(&section, &bytes, &bases);
            spans::fill(&mut spans, found);
            holes = functions.holes(code, &spans);
        }
        let found = functions.by_code(code, holes);
        spans::fill(&mut spans, found);
    }
    Built {
        rows: spans::rows(&spans, &functions.rows),
        skipped: functions.skipped,
    }
}

fn base_addresses(sections: &CfiSections<'_>) -> BaseAddresses {
    let mut bases = BaseAddresses::default();
    if let Some((Svma(at), _)) = sections.eh_frame {
        bases = bases.set_eh_frame(at);
    }
    if let Some(Svma(at)) = sections.text {
        bases = bases.set_text(at);
    }
    if let Some(Svma(at)) = sections.got {
        bases = bases.set_got(at);
    }
    bases
}
