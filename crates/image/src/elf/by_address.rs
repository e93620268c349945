use super::header::Header;
use super::symbols::{Entry, Table, Type};

/// Functions by address: which of the two tables, and which entry of it.
#[derive(Debug)]
pub(crate) struct ByAddress {
    /// Lowest start first.
    spans: Vec<Span>,
    /// Who covers what, each address once: of spans with a size the one that begins last.
    pieces: Vec<Piece>,
}

/// From here to the next piece it is this span's, or nobody's that has a size.
#[derive(Debug)]
struct Piece {
    start: u64,
    span: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
    is_sized: bool,
    full: bool,
    index: u32,
}

impl ByAddress {
    /// Only what lies in executable segments. Of several names for one range, the best is last:
    /// global rather than weak or local, then the one with fewest underscores in front.
    pub(crate) fn new(header: &Header, dynamic: &Table, full: &Table) -> ByAddress {
        let mut spans = Vec::new();
        for table in [dynamic, full] {
            for (index, entry) in (0_u32..).zip(table.entries()) {
                if is_code(header, entry) {
                    spans.push(Span {
                        start: entry.svma,
                        end: end(header, entry),
                        is_sized: entry.size > 0,
                        full: !table.dynamic,
                        index,
                    });
                }
            }
        }
        spans.sort_by_cached_key(|span| {
            let table = if span.full { full } else { dynamic };
            let entry = &table.entries()[span.index as usize];
            (span.start, rank(entry, table.name(entry)))
        });
        cut_unsized(&mut spans);
        let pieces = pieces(&spans);
        ByAddress { spans, pieces }
    }

    /// Index of the entry that covers `svma`, and whether it is in `.symtab`. A label without a
    /// size is asked where nothing with a size is: it may lie within a function.
    pub(crate) fn find(&self, svma: u64) -> Option<(bool, usize)> {
        let found = |span: &Span| (span.full, span.index as usize);
        let after = self.pieces.partition_point(|piece| piece.start <= svma);
        let piece = after.checked_sub(1).and_then(|at| self.pieces.get(at));
        if let Some(span) = piece.and_then(|piece| piece.span) {
            return self.spans.get(span as usize).map(found);
        }
        let after = self.spans.partition_point(|span| span.start <= svma);
        let label = after.checked_sub(1).and_then(|at| self.spans.get(at));
        let covers = |span: &&Span| !span.is_sized && svma < span.end;
        label.filter(covers).map(found)
    }

    /// All entries that begin at `svma`, as in [`ByAddress::find`].
    pub(crate) fn all_at(&self, svma: u64) -> impl Iterator<Item = (bool, usize)> {
        let first = self.spans.partition_point(|span| span.start < svma);
        let there = self.spans.iter().skip(first);
        let there = there.take_while(move |span| span.start == svma);
        there.map(|span| (span.full, span.index as usize))
    }
}

fn is_code(header: &Header, entry: &Entry) -> bool {
    let typed = matches!(entry.kind, Type::Function | Type::Resolver | Type::Untyped);
    typed
        && header
            .segment_at(entry.svma)
            .is_some_and(|segment| segment.exec)
}

/// Assembly without `.size` reaches to the end of its section, or to the next symbol.
fn end(header: &Header, entry: &Entry) -> u64 {
    if entry.size > 0 {
        return entry.svma.saturating_add(entry.size);
    }
    let section = header.sections.get(usize::from(entry.section));
    section.map_or(entry.svma, |section| {
        section.svma.saturating_add(section.size)
    })
}

fn cut_unsized(spans: &mut [Span]) {
    let mut next = u64::MAX;
    let mut at = u64::MAX;
    for span in spans.iter_mut().rev() {
        if span.start != at {
            (next, at) = (at, span.start);
        }
        if !span.is_sized {
            span.end = span.end.min(next);
        }
    }
}

/// Who covers what of `spans`, lowest start first, the best of several last.
fn pieces(spans: &[Span]) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    // Those that have begun, of which the last may have ended.
    let mut open: Vec<(u32, u64)> = Vec::new();
    let sized = (0_u32..).zip(spans).filter(|(_, span)| span.is_sized);
    for (index, span) in sized {
        close(&mut open, &mut pieces, span.start);
        open.push((index, span.end));
        pieces.push(Piece {
            start: span.start,
            span: Some(index),
        });
    }
    close(&mut open, &mut pieces, u64::MAX);
    pieces
}

/// Ends what ends up to `at`: what is open about it goes on.
fn close(open: &mut Vec<(u32, u64)>, pieces: &mut Vec<Piece>, at: u64) {
    while let Some(&(_, end)) = open.last().filter(|(_, end)| *end <= at) {
        open.pop();
        while open.last().is_some_and(|(_, other)| *other <= end) {
            open.pop();
        }
        let span = open.last().map(|(index, _)| *index);
        pieces.push(Piece { start: end, span });
    }
}

fn rank(entry: &Entry, name: &[u8]) -> (bool, u8, usize, Vec<u8>) {
    let binding = match entry.binding {
        1 => 2,
        2 => 1,
        _ => 0,
    };
    let underscores = name.iter().take_while(|&&byte| byte == b'_').count();
    let sized = entry.size > 0;
    (sized, binding, usize::MAX - underscores, name.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: u64, end: u64, index: u32) -> Span {
        Span {
            start,
            end,
            is_sized: end > start,
            full: true,
            index,
        }
    }

    #[test]
    fn what_begins_last_has_an_address_and_labels_only_what_nobody_has() {
        let mut spans: Vec<_> = (0..1000).map(|at| span(100 + at, 101 + at, 9)).collect();
        spans.insert(0, span(0, 10_000, 0)); // about all
        spans.push(span(5000, 6000, 1));
        spans.push(span(5500, 7000, 2)); // overlaps
        spans.push(span(5600, 0, 3)); // a label in it
        spans.push(span(8000, 8000, 4)); // without a size
        spans.push(span(11_000, 11_000, 5));
        spans.push(span(12_000, 12_100, 6));
        for label in [3, 4, 5].map(|index| spans.iter().position(|span| span.index == index)) {
            spans[label.unwrap()].end = u64::MAX;
        }
        for span in &mut spans {
            span.is_sized = ![3, 4, 5].contains(&span.index);
        }
        cut_unsized(&mut spans);
        let pieces = pieces(&spans);
        let all = ByAddress { spans, pieces };
        for (at, expected) in [
            (0, Some(0)),
            (99, Some(0)),
            (100, Some(9)),
            (1099, Some(9)),
            (1100, Some(0)),
            (5200, Some(1)),
            (5500, Some(2)),
            (5700, Some(2)),
            (6500, Some(2)),
            (7000, Some(0)),
            (8500, Some(0)),
            (10_500, Some(4)),
            (11_500, Some(5)),
            (12_050, Some(6)),
            (12_100, None),
        ] {
            assert_eq!(all.find(at), expected.map(|index| (true, index)), "{at}");
        }
    }
}
