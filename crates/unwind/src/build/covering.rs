use std::ops::Range;

use gimli::{DebugFrame, EhFrame, FrameDescriptionEntry, LittleEndian, UnwindSection};
use leaktap_memory::Svma;

use super::functions::{Bytes, each};
use super::{CfiSections, base_addresses};

/// First byte and end of all functions that the sections have, sorted; of one that is in both,
/// twice.
pub fn functions(sections: &CfiSections<'_>) -> Vec<Range<Svma>> {
    let bases = base_addresses(sections);
    let mut functions = Vec::new();
    let mut add = |fde: Option<FrameDescriptionEntry<_>>| functions.extend(fde.as_ref().map(range));
    if let Some((_, bytes)) = sections.eh_frame {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        each(&section, bytes, &bases, &mut add);
    }
    if let Some(bytes) = sections.debug_frame {
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        each(&section, bytes, &bases, &mut add);
    }
    functions.sort_by_key(|function| (function.start, function.end));
    functions
}

/// Whether a program's own unwinder, which knows `.eh_frame` alone, may get past code in `range`: a
/// function there is described, or that cannot be told, since something is not to be read.
pub fn may_unwind(sections: &CfiSections<'_>, within: &Range<Svma>) -> bool {
    let Some((_, bytes)) = sections.eh_frame else {
        return true;
    };
    let mut section = EhFrame::new(bytes, LittleEndian);
    section.set_address_size(8);
    let mut may = false;
    each(&section, bytes, &base_addresses(sections), |fde| {
        let overlaps = |fde| {
            let range: Range<Svma> = range(&fde);
            range.start < within.end && within.start < range.end
        };
        may |= fde.is_none_or(overlaps);
    });
    may
}

fn range(fde: &FrameDescriptionEntry<Bytes<'_>>) -> Range<Svma> {
    let start = fde.initial_address();
    Svma(start)..Svma(start.saturating_add(fde.len()))
}

/// For each of `at`: first byte and end of the function that it lies in, as the sections have it.
/// None where they say nothing.
pub fn functions_at(sections: &CfiSections<'_>, at: &[Svma]) -> Vec<Option<Range<Svma>>> {
    let mut functions = vec![None; at.len()];
    if let Some((_, bytes)) = sections.eh_frame {
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        cover(&section, bytes, sections, at, &mut functions);
    }
    if let Some(bytes) = sections.debug_frame {
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        cover(&section, bytes, sections, at, &mut functions);
    }
    functions
}

/// Fills in the functions of `section` where there are none yet; of several, the one that starts
/// last.
fn cover<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    bytes: &'a [u8],
    sections: &CfiSections<'_>,
    at: &[Svma],
    functions: &mut [Option<Range<Svma>>],
) {
    let missing: Vec<_> = functions.iter().map(Option::is_none).collect();
    each(section, bytes, &base_addresses(sections), |fde| {
        let Some(fde) = fde else { return };
        let range = range(&fde);
        let wanted = at.iter().zip(functions.iter_mut()).zip(&missing);
        for ((at, function), missing) in wanted {
            let starts_later = function.as_ref().is_none_or(|old| old.start < range.start);
            if *missing && range.contains(at) && starts_later {
                *function = Some(range.clone());
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `.debug_frame` with functions of 16 bytes at 0x1000 and of 4 in it, at 0x1008.
    fn section() -> Vec<u8> {
        let entry = |id: u32, body: &[u8]| {
            let len = (body.len() + 4) as u32;
            [&len.to_le_bytes(), &id.to_le_bytes(), body].concat()
        };
        let cie = [1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1];
        let function = |start: u64, len: u64| {
            let range = [start, len].map(u64::to_le_bytes);
            entry(0, range.as_flattened())
        };
        let functions = [function(0x1008, 4), function(0x1000, 16)].concat();
        [entry(u32::MAX, &cie), functions, vec![7, 0, 0]].concat()
    }

    #[test]
    fn a_byte_belongs_to_the_function_that_starts_last_before_it() {
        let section = section();
        let sections = CfiSections {
            debug_frame: Some(&section),
            ..CfiSections::default()
        };
        let range = |start, end| Some(Svma(start)..Svma(end));
        for (at, expected) in [
            (0xfff, None),
            (0x1000, range(0x1000, 0x1010)),
            (0x1008, range(0x1008, 0x100c)),
            (0x100c, range(0x1000, 0x1010)),
            (0x1010, None),
        ] {
            let found = functions_at(&sections, &[Svma(0), Svma(at)]);
            assert_eq!(found, [None, expected], "{at:x}");
        }
        let all = [range(0x1000, 0x1010), range(0x1008, 0x100c)];
        assert_eq!(functions(&sections), all.map(Option::unwrap));
    }
}
