use std::cmp::Reverse;
use std::ops::Range;

use crate::Row;

/// A range of a module's code and the rows that hold in it.
///
/// The first row may start before the range and later ones past its end: a span can be the part of
/// a function that others leave to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Span {
    /// First byte, counted from the module's base.
    pub(super) start: u32,
    /// One past the last byte.
    pub(super) end: u32,
    /// Where its rows are among all rows.
    pub(super) rows: Range<usize>,
}

impl Span {
    fn part(&self, start: u32, end: u32) -> Option<Span> {
        let rows = self.rows.clone();
        (start < end).then_some(Span { start, end, rows })
    }
}

/// Adds to `spans`, sorted and without overlaps, what `functions` say about code that `spans` do
/// not cover.
pub(super) fn fill(spans: &mut Vec<Span>, functions: Vec<Span>) {
    let functions = flatten(functions);
    let added = uncovered(&functions, spans);
    spans.extend(added);
    spans.sort_by_key(|span| span.start);
}

/// Settles overlaps: a byte belongs to the function that starts last before it, as a binary search
/// of `.eh_frame_hdr` has it; of those that start together to the shortest, and then to the first.
fn flatten(mut functions: Vec<Span>) -> Vec<Span> {
    let indexed = |span: &Span| (span.start, Reverse(span.end), Reverse(span.rows.start));
    functions.sort_by_key(indexed);
    let mut flat = Vec::with_capacity(functions.len());
    let mut open: Vec<Span> = Vec::new();
    let mut done = 0;
    for function in functions {
        close(&mut open, &mut flat, &mut done, function.start);
        done = function.start;
        open.push(function);
    }
    close(&mut open, &mut flat, &mut done, u32::MAX);
    flat
}

/// Writes what the open functions, each within or across the one below it, say of the bytes from
/// `done` to `to`.
fn close(open: &mut Vec<Span>, flat: &mut Vec<Span>, done: &mut u32, to: u32) {
    while let Some(top) = open.last() {
        flat.extend(top.part(*done, top.end.min(to)));
        *done = (*done).max(top.end.min(to));
        if top.end > to {
            return;
        }
        open.pop();
    }
}

/// The parts of `spans` that lie outside `covered`; both are sorted and without overlaps.
fn uncovered(spans: &[Span], covered: &[Span]) -> Vec<Span> {
    let mut parts = Vec::new();
    let mut covered = covered.iter().peekable();
    for span in spans {
        let mut from = span.start;
        while let Some(hole) = covered.next_if(|hole| hole.end <= span.end) {
            parts.extend(span.part(from, hole.start.min(span.end)));
            from = from.max(hole.end);
        }
        let to = covered
            .peek()
            .map_or(span.end, |hole| hole.start.min(span.end));
        parts.extend(span.part(from, to));
    }
    parts
}

/// The rows of `spans`, sorted and without overlaps, in one sequence, with gaps marked.
pub(super) fn rows(spans: &[Span], all: &[Row]) -> Vec<Row> {
    let mut rows = Rows::default();
    let mut end = None;
    for span in spans {
        if let Some(end) = end.filter(|&end| end < span.start) {
            rows.push(Row::gap(end));
        }
        rows.push_span(span, all.get(span.rows.clone()).unwrap_or_default());
        end = Some(span.end);
    }
    if let Some(end) = end {
        rows.push(Row::gap(end));
    }
    rows.0
}

#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn push_span(&mut self, span: &Span, rows: &[Row]) {
        let first = rows
            .partition_point(|row| row.start() <= span.start)
            .saturating_sub(1);
        for row in rows
            .iter()
            .skip(first)
            .take_while(|row| row.start() < span.end)
        {
            self.push(row.starting_at(row.start().max(span.start)));
        }
    }

    /// Adds a row, unless it says what the last one says.
    fn push(&mut self, row: Row) {
        if self
            .0
            .last()
            .is_some_and(|last| last.start() == row.start())
        {
            self.0.pop();
        }
        if self.0.last().is_none_or(|last| last.found() != row.found()) {
            self.0.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Cfa, Found, Rule, SavedBp, Step};

    fn rule(number: i32) -> Rule {
        Rule::pack(Step::Call {
            cfa: Cfa::Sp(number),
            bp: SavedBp::Unchanged,
        })
    }

    /// Functions `(start, end)`, each with one row, numbered in order.
    fn functions(ranges: &[(u32, u32)], all: &mut Vec<Row>) -> Vec<Span> {
        let numbered = ranges.iter().map(|&(start, end)| {
            let first = all.len();
            all.push(Row::new(start, rule(first as i32)));
            Span {
                start,
                end,
                rows: first..first + 1,
            }
        });
        numbered.collect()
    }

    /// Which function each of the first `len` bytes belongs to.
    fn owners(rows: &[Row], len: u32) -> Vec<Option<i32>> {
        let owner = |at| {
            let row = rows.iter().rev().find(|row| row.start() <= at)?;
            match row.found() {
                Found::Rule(rule) => match rule.unpack() {
                    Step::Call {
                        cfa: Cfa::Sp(number),
                        ..
                    } => Some(number),
                    _ => None,
                },
                Found::NoCfi => None,
            }
        };
        (0..len).map(owner).collect()
    }

    #[test]
    fn each_byte_belongs_to_the_function_that_starts_last_before_it() {
        let tables: [&[(u32, u32)]; 6] = [
            &[(2, 4), (4, 6), (8, 9)],
            &[(0, 10), (2, 4), (5, 7)],
            &[(5, 7), (0, 6), (1, 8)],
            &[(3, 9), (3, 5), (3, 5)],
            &[(0, 3), (2, 6), (5, 12), (11, 12)],
            &[(0, 12), (1, 11), (2, 10), (3, 4)],
        ];
        for table in tables {
            let mut all = Vec::new();
            let mut spans = Vec::new();
            fill(&mut spans, functions(table, &mut all));
            let expected: Vec<Option<i32>> = (0..14).map(|at| owner(table, at)).collect();
            assert_eq!(owners(&rows(&spans, &all), 14), expected, "{table:?}");
        }
    }

    fn owner(table: &[(u32, u32)], at: u32) -> Option<i32> {
        let inside = table
            .iter()
            .enumerate()
            .filter(|(_, f)| f.0 <= at && at < f.1);
        let best = inside.max_by_key(|(index, f)| (f.0, Reverse(f.1), Reverse(*index)));
        best.map(|(index, _)| index as i32)
    }

    #[test]
    fn a_second_section_only_fills_what_the_first_leaves() {
        let mut all = Vec::new();
        let mut spans = Vec::new();
        fill(&mut spans, functions(&[(2, 4), (6, 8), (8, 10)], &mut all));
        fill(
            &mut spans,
            functions(&[(0, 3), (3, 7), (9, 14), (20, 22)], &mut all),
        );
        let mut expected = vec![Some(3); 2];
        expected.extend([Some(0); 2]);
        expected.extend([Some(4); 2]);
        expected.extend([Some(1); 2]);
        expected.extend([Some(2); 2]);
        expected.extend([Some(5); 4]);
        expected.extend([None; 6]);
        expected.extend([Some(6); 2]);
        expected.extend([None; 2]);
        assert_eq!(owners(&rows(&spans, &all), 24), expected);
    }

    #[test]
    fn neighbours_that_say_the_same_become_one_row() {
        let all = [
            Row::new(0, rule(8)),
            Row::new(4, rule(16)),
            Row::new(6, rule(8)),
            Row::new(8, rule(8)),
        ];
        let spans = [
            Span {
                start: 0,
                end: 8,
                rows: 0..3,
            },
            Span {
                start: 8,
                end: 12,
                rows: 3..4,
            },
        ];
        let expected = [
            Row::new(0, rule(8)),
            Row::new(4, rule(16)),
            Row::new(6, rule(8)),
            Row::gap(12),
        ];
        assert_eq!(rows(&spans, &all), expected);
    }
}
