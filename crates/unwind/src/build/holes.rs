use std::ops::Range;

use leaktap_memory::Svma;

use super::flow::{Flow, Known};
use super::frame_state::State;
use super::functions::Functions;
use super::spans::Span;
use crate::{Row, Rule, Step};

/// The shortest code that is looked at: what is between functions is shorter, mostly.
const SHORTEST: u32 = 16;

/// Most bytes of code that are looked at: with more, a program is built with frame pointers and has
/// its reasons to have nothing else (browsers), or is not worth the time before an attach.
const MOST_CODE: usize = 4 << 20;

/// With fewer bytes, it is what is linked to all programs, some 250 of them: symbols tell of
/// nothing that is not found without.
const NEEDS_SYMBOLS: usize = 320;

/// The code of a file.
pub trait Code {
    /// Where it is, in any order.
    fn ranges(&self) -> Vec<Range<Svma>>;

    /// The bytes there; nothing if they cannot be read.
    fn bytes(&self, range: &Range<Svma>) -> Option<Vec<u8>>;

    /// First bytes of functions.
    fn functions(&self) -> Vec<Svma>;

    /// Other places in the code that have names.
    fn labels(&self) -> Vec<Svma>;

    /// Where a program, or its dynamic linker, begins.
    fn entry(&self) -> Option<Svma>;

    /// Bytes of a `.debug_frame` that is kept apart from the file, decompressed.
    fn debug_frame(&self) -> Option<Vec<u8>>;
}

/// Code that nothing says anything of: where it is, from the module's base.
pub(super) struct Holes(Vec<Range<u32>>);

impl Holes {
    fn size(&self) -> usize {
        let sizes = self.0.iter().map(|hole| hole.len());
        sizes.fold(0, usize::saturating_add)
    }

    /// Whether there is more than what is linked to all programs.
    pub(super) fn has_functions(&self) -> bool {
        self.size() >= NEEDS_SYMBOLS
    }
}

impl Functions {
    fn offset(&self, at: Svma) -> Option<u32> {
        at.0.checked_sub(self.base.0)?.try_into().ok()
    }

    /// What `spans`, sorted and without overlaps, leave of `code`.
    pub(super) fn holes(&self, code: &dyn Code, spans: &[Span]) -> Holes {
        let mut holes = Vec::new();
        for range in code.ranges() {
            if let (Some(start), Some(end)) = (self.offset(range.start), self.offset(range.end)) {
                holes.extend(between(start..end, spans));
            }
        }
        holes.sort_by_key(|hole| hole.start);
        Holes(holes)
    }

    /// Makes functions of `holes` in `code`.
    pub(super) fn by_code(&mut self, code: &dyn Code, holes: Holes) -> Vec<Span> {
        if holes.size() == 0 || holes.size() > MOST_CODE {
            return Vec::new();
        }
        let has_functions = holes.has_functions();
        let base = self.base.0;
        let svma = |at: u32| Svma(base.saturating_add(at.into()));
        let read = |hole: Range<u32>| {
            let bytes = code.bytes(&(svma(hole.start)..svma(hole.end)))?;
            Some((hole.start, bytes))
        };
        let mut flow = Flow::new(base, holes.0.into_iter().filter_map(read).collect());
        if let Some(entry) = code.entry().and_then(|at| self.offset(at)) {
            flow.start(entry, State::OUTERMOST);
        }
        if has_functions {
            for at in code.functions() {
                self.offset(at)
                    .into_iter()
                    .for_each(|at| flow.start(at, State::ENTRY));
            }
            for at in code.labels() {
                self.offset(at).into_iter().for_each(|at| flow.label(at));
            }
        }
        flow.run();
        flow.found()
            .map(|(range, known)| self.derived(range, &known))
            .collect()
    }

    /// What is known of the code at `range`, as of one function.
    fn derived(&mut self, range: Range<u32>, known: &[(u32, Known)]) -> Span {
        let first = self.rows.len();
        let mut last = None;
        for (at, known) in known {
            let row = match known {
                Known::State(state) => Row::new(*at, state.rule()),
                Known::Refused => Row::new(*at, Rule::pack(Step::Unsupported).derived()),
                Known::Nothing => Row::gap(*at),
            };
            if last.replace(row.found()) != Some(row.found()) {
                self.rows.push(row);
            }
        }
        Span {
            start: range.start,
            end: range.end,
            rows: first..self.rows.len(),
        }
    }
}

/// The parts of `range` that `spans` do not cover, but for the shortest.
fn between(range: Range<u32>, spans: &[Span]) -> Vec<Range<u32>> {
    let mut parts = Vec::new();
    let mut from = range.start;
    let first = spans.partition_point(|span| span.end <= range.start);
    let inside = spans
        .iter()
        .skip(first)
        .take_while(|span| span.start < range.end);
    for span in inside {
        parts.push(from..span.start.max(from));
        from = from.max(span.end);
    }
    parts.push(from..range.end.max(from));
    parts.retain(|part| part.end - part.start >= SHORTEST);
    parts
}
