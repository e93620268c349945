use std::collections::HashMap;
use std::ops::Range;

use gimli::{
    BaseAddresses, CommonInformationEntry, EndianSlice, Error, FrameDescriptionEntry, LittleEndian,
    UnwindContext, UnwindOffset, UnwindSection,
};
use leaktap_memory::Svma;

use super::convert::Conventions;
use super::signal_return;
use super::spans::Span;
use crate::{Row, Rule, Step};

pub(super) type Bytes<'a> = EndianSlice<'a, LittleEndian>;
type Cies<'a> = HashMap<usize, gimli::Result<CommonInformationEntry<Bytes<'a>>>>;

/// How often the bytes of a section may be gone through, because many entries share a CIE:
/// compilers' entries are about as long as their CIE, so that once is the rule.
const MOST_SHARED: usize = 16;

/// Bytes that any section may go through.
const SHARED_ANYWAY: usize = 1 << 16;

/// Reads frame description entries ("functions") into rows.
pub(super) struct Functions {
    pub(super) base: Svma,
    context: UnwindContext<usize>,
    /// Bytes of CIEs that may still be gone through, see [`MOST_SHARED`].
    left: usize,
    /// The rows of all functions, one function after the other.
    pub(super) rows: Vec<Row>,
    /// Entries that could not be read, wholly or in part.
    pub(super) skipped: usize,
}

impl Functions {
    pub(super) fn new(base: Svma) -> Functions {
        Functions {
            base,
            context: UnwindContext::new(),
            left: 0,
            rows: Vec::new(),
            skipped: 0,
        }
    }

    /// Reads every function of `section`, whose bytes are `bytes`, in the section's order.
    pub(super) fn read<'a, S: UnwindSection<Bytes<'a>>>(
        &mut self,
        section: &S,
        bytes: &'a [u8],
        bases: &BaseAddresses,
    ) -> Vec<Span> {
        self.left = bytes.len().saturating_mul(MOST_SHARED) + SHARED_ANYWAY;
        let mut spans = Vec::new();
        each(section, bytes, bases, |fde| match fde {
            Some(fde) => spans.extend(self.function(section, bases, &fde)),
            None => self.skipped += 1,
        });
        spans
    }

    fn function<'a, S: UnwindSection<Bytes<'a>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        fde: &FrameDescriptionEntry<Bytes<'a>>,
    ) -> Option<Span> {
        // Linkers leave address 0 in the .debug_frame entries of functions that they dropped.
        if fde.initial_address() == 0 || fde.len() == 0 {
            return None;
        }
        let Some((start, end)) = self.range(fde) else {
            self.skipped += 1;
            return None;
        };
        let first = self.rows.len();
        let mut known = start;
        let is_read = self.may_go_through(fde.cie().entry_len())
            && self.evaluate(section, bases, fde, &mut known).is_ok();
        if !is_read {
            self.skipped += 1;
            let rest = Row::new(known, Rule::pack(Step::Unsupported));
            self.rows.push(rest);
        }
        let rows = first..self.rows.len();
        Some(Span { start, end, rows })
    }

    /// Counts the bytes of a CIE, which are gone through for each of its functions. False if that
    /// has been done too often.
    fn may_go_through(&mut self, len: usize) -> bool {
        let left = self.left.checked_sub(len);
        self.left = left.unwrap_or(self.left);
        left.is_some()
    }

    /// First byte and end of `fde`, counted from the base.
    fn range(&self, fde: &FrameDescriptionEntry<Bytes<'_>>) -> Option<(u32, u32)> {
        let start = fde.initial_address().checked_sub(self.base.0)?;
        let end = start.checked_add(fde.len())?;
        Some((start.try_into().ok()?, end.try_into().ok()?))
    }

    /// Adds the rows of `fde`, and moves `known`, a byte of the module, to the end of each.
    fn evaluate<'a, S: UnwindSection<Bytes<'a>>>(
        &mut self,
        section: &S,
        bases: &BaseAddresses,
        fde: &FrameDescriptionEntry<Bytes<'a>>,
        known: &mut u32,
    ) -> gimli::Result<()> {
        let conventions = Conventions::of(section, fde);
        let mut table = fde.rows(section, bases, &mut self.context)?;
        let mut last = None;
        while let Some(row) = table.next_row()? {
            let rule = Rule::pack(conventions.step(row));
            // Most of them differ in what happens to other registers.
            if last.replace(rule) != Some(rule) {
                self.rows.push(Row::new(*known, rule));
            }
            let end = row.end_address().wrapping_sub(self.base.0);
            match u32::try_from(end) {
                Ok(end) => *known = end,
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Makes functions of those that are told `instead` of what the sections say.
    pub(super) fn instead(&mut self, instead: &[(Range<Svma>, Step)]) -> Vec<Span> {
        let offset = |at: Svma| at.0.checked_sub(self.base.0)?.try_into().ok();
        let mut spans = Vec::new();
        for (range, step) in instead {
            let (Some(start), Some(end)) = (offset(range.start), offset(range.end)) else {
                continue;
            };
            let first = self.rows.len();
            self.rows.push(Row::new(start, Rule::pack(*step)));
            let rows = first..first + 1;
            spans.push(Span { start, end, rows });
        }
        spans
    }

    /// Makes functions of signal-return code.
    pub(super) fn signal_returns(&mut self, at: &[Svma]) -> Vec<Span> {
        let mut spans = Vec::new();
        for &Svma(at) in at {
            // The kernel makes the handler return to the first byte, which is looked up one byte
            // earlier.
            let start = at.checked_sub(self.base.0).and_then(|at| at.checked_sub(1));
            let Some(start) = start.and_then(|start| u32::try_from(start).ok()) else {
                continue;
            };
            let first = self.rows.len();
            self.rows
                .push(Row::new(start, Rule::pack(Step::KERNEL_SIGNAL_FRAME)));
            spans.push(Span {
                start,
                end: start.saturating_add(1 + signal_return::LEN),
                rows: first..first + 1,
            });
        }
        spans
    }
}

/// Tells `found` of every function of `section`, whose bytes are `bytes`, in the section's order;
/// nothing of what cannot be read.
///
/// Goes from entry to entry by their lengths rather than with gimli's iterator, which gives up the
/// section at the first entry that it does not know, and at the zero word that some statically
/// linked programs have in the middle.
pub(super) fn each<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    bytes: &'a [u8],
    bases: &BaseAddresses,
    mut found: impl FnMut(Option<FrameDescriptionEntry<Bytes<'a>>>),
) {
    let mut cies = Cies::new();
    let mut offset = 0;
    while offset < bytes.len() {
        let Some(end) = entry_end(bytes, offset) else {
            found(None);
            break;
        };
        match parse(section, bases, &mut cies, offset) {
            Ok(fde) => found(Some(fde)),
            // A CIE, and the zero word.
            Err(Error::NotCiePointer(_) | Error::NoEntryAtGivenOffset(_)) => {}
            Err(_) => found(None),
        }
        offset = end;
    }
}

/// Where the entry at `offset` ends, by its length word (DWARF 5, section 7.4).
fn entry_end(bytes: &[u8], offset: usize) -> Option<usize> {
    let rest = bytes.get(offset..)?;
    let short = u32::from_le_bytes(rest.first_chunk().copied()?);
    let (header, length) = if short == u32::MAX {
        let long = u64::from_le_bytes(rest.get(4..)?.first_chunk().copied()?);
        (12, usize::try_from(long).ok()?)
    } else {
        (4, usize::try_from(short).ok()?)
    };
    let end = offset.checked_add(header)?.checked_add(length)?;
    (end <= bytes.len()).then_some(end)
}

fn parse<'a, S: UnwindSection<Bytes<'a>>>(
    section: &S,
    bases: &BaseAddresses,
    cies: &mut Cies<'a>,
    offset: usize,
) -> gimli::Result<FrameDescriptionEntry<Bytes<'a>>> {
    let fde = section.fde_from_offset(bases, S::Offset::from(offset), |section, bases, at| {
        let parsed = cies.entry(UnwindOffset::into(at));
        parsed
            .or_insert_with(|| section.cie_from_offset(bases, at))
            .clone()
    })?;
    if fde.cie().address_size() == 8 {
        Ok(fde)
    } else {
        Err(Error::UnsupportedAddressSize(fde.cie().address_size()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Built, CfiSections, Found, rows};

    /// Bytes of an entry, with its length before it.
    fn entry(id: u32, body: &[u8]) -> Vec<u8> {
        let len = (body.len() + 4) as u32;
        [&len.to_le_bytes(), &id.to_le_bytes(), body].concat()
    }

    /// `.debug_frame` with `functions` of one CIE that has `nops` of padding.
    fn built(functions: u64, nops: usize) -> Built {
        let cie = [
            &[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1][..],
            &vec![0; nops],
        ]
        .concat();
        let mut section = entry(u32::MAX, &cie);
        for function in 0..functions {
            let range = [0x1000 + 0x10 * function, 0x10].map(u64::to_le_bytes);
            section.extend(entry(0, range.as_flattened()));
        }
        rows(&CfiSections {
            debug_frame: Some(&section),
            ..CfiSections::default()
        })
    }

    /// 100,000 functions that share a CIE of a MiB took minutes.
    #[test]
    fn a_long_cie_is_not_gone_through_for_each_of_many_functions() {
        assert_eq!(built(4000, 16).skipped, 0);
        let long = built(4000, 1 << 20);
        let (read, first) = (
            4000 - long.skipped,
            long.rows.first().map(|row| row.found()),
        );
        assert!((1..=2 * MOST_SHARED).contains(&read), "{read} were read");
        assert_eq!(
            long.rows.len(),
            3,
            "what is read, what is not, and what is behind"
        );
        assert_ne!(first, Some(Found::Rule(Rule::pack(Step::Unsupported))));
    }
}
