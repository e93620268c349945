use super::header::Header;
use super::symbols::{Entry, Table, Type};

/// How many symbols that begin earlier are asked whether they cover an address: aliases, and
/// functions inside a function's range.
const LOOK_BACK: usize = 32;

/// Functions by address: which of the two tables, and which entry of it.
#[derive(Debug)]
pub(crate) struct ByAddress(Vec<Span>);

#[derive(Clone, Copy, Debug)]
struct Span {
    start: u64,
    end: u64,
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
        cut_unsized(&mut spans, |span| {
            let table = if span.full { full } else { dynamic };
            table.entries()[span.index as usize].size == 0
        });
        ByAddress(spans)
    }

    /// Index of the entry that covers `svma`, and whether it is in `.symtab`.
    pub(crate) fn find(&self, svma: u64) -> Option<(bool, usize)> {
        let after = self.0.partition_point(|span| span.start <= svma);
        let before = self.0.get(..after)?.iter().rev().take(LOOK_BACK);
        let mut covering = before.filter(|span| svma < span.end);
        covering.next().map(|span| (span.full, span.index as usize))
    }

    /// All entries that begin at `svma`, as in [`ByAddress::find`].
    pub(crate) fn all_at(&self, svma: u64) -> impl Iterator<Item = (bool, usize)> {
        let first = self.0.partition_point(|span| span.start < svma);
        let there = self.0.iter().skip(first);
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

fn cut_unsized(spans: &mut [Span], unsized_: impl Fn(&Span) -> bool) {
    let mut next = u64::MAX;
    let mut at = u64::MAX;
    for span in spans.iter_mut().rev() {
        if span.start != at {
            (next, at) = (at, span.start);
        }
        if unsized_(span) {
            span.end = span.end.min(next);
        }
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
