//! valgrind's suppression files: valgrind(1), "Suppressing errors".

use super::glob::{End, is_like, matches};
use super::stack::{Call, Stack, names};
use super::{Matcher, Problem, Rule};
use crate::Kind;

/// A stack, as such a file describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// Which kinds of leaks; all if it does not say so.
    kinds: Option<Vec<Kind>>,
    lines: Vec<Line>,
}

/// A line that stands for a frame, or for many.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Line {
    Function(String),
    Object(String),
    /// A file, and a line of it.
    Source(String, Option<u32>),
    /// `...`: any frames, or none.
    Any,
}

/// The rules for leaks in `text`; those for other errors, or other tools, are passed over.
pub(super) fn parse(text: &str) -> Result<Vec<Rule>, Problem> {
    let mut lines = (1u32..).zip(text.lines().map(str::trim));
    let mut rules = Vec::new();
    while let Some((number, line)) = lines.next() {
        match line {
            "{" => {}
            _ if is_nothing(line) => continue,
            _ => return Err(Problem::at(number, "here `{` begins a suppression")),
        }
        let mut body = Vec::new();
        loop {
            match lines.next() {
                Some((_, "}")) => break,
                Some((_, line)) if is_nothing(line) => {}
                Some((at, line)) => body.push((at, line)),
                None => return Err(Problem::at(number, "this suppression has no `}`")),
            }
        }
        rules.extend(rule(number, &body)?);
    }
    Ok(rules)
}

fn is_nothing(line: &str) -> bool {
    line.is_empty() || line.starts_with('#')
}

/// The rule that begins at line `number` of its file; none if it is not for leaks.
fn rule(number: u32, body: &[(u32, &str)]) -> Result<Option<Rule>, Problem> {
    let [(_, name), (at, what), rest @ ..] = body else {
        let why = "a suppression has a name, a kind (Memcheck:Leak), and frames";
        return Err(Problem::at(number, why));
    };
    let Some((tools, kind)) = what.split_once(':') else {
        return Err(Problem::at(
            *at,
            "the kind is TOOL:KIND, as in Memcheck:Leak",
        ));
    };
    let mut tools = tools.split(',').map(str::trim);
    if !tools.any(|tool| tool == "Memcheck") || kind.trim() != "Leak" {
        return Ok(None);
    }
    let (kinds, frames) = match rest {
        [(at, first), rest @ ..] if first.starts_with(KINDS) => (Some(kinds(*at, first)?), rest),
        rest => (None, rest),
    };
    let lines = frames.iter().map(|(at, line)| parse_line(*at, line));
    let lines: Vec<_> = lines.collect::<Result<_, _>>()?;
    if !lines.iter().any(|line| *line != Line::Any) {
        let why = "a suppression without fun:, obj: or src: would match everything";
        return Err(Problem::at(number, why));
    }
    let matcher = Matcher::Stack(Pattern { kinds, lines });
    Ok(Some(Rule::new(name, number, matcher)))
}

const KINDS: &str = "match-leak-kinds:";

fn kinds(at: u32, line: &str) -> Result<Vec<Kind>, Problem> {
    let names = line.strip_prefix(KINDS).unwrap_or_default();
    let mut kinds = Vec::new();
    for name in names.split(',').map(str::trim) {
        kinds.extend(match name {
            "definite" => &[Kind::Definite][..],
            "indirect" => &[Kind::Indirect],
            "possible" => &[Kind::Possible],
            "reachable" => &[Kind::Reachable],
            "all" => &[
                Kind::Definite,
                Kind::Indirect,
                Kind::Possible,
                Kind::Reachable,
            ],
            "none" => &[],
            _ => {
                let why = "leak kinds are definite, indirect, possible, reachable, all, none";
                return Err(Problem::at(at, why));
            }
        });
    }
    Ok(kinds)
}

fn parse_line(at: u32, line: &str) -> Result<Line, Problem> {
    if line == "..." {
        return Ok(Line::Any);
    }
    let parsed = line.split_once(':').and_then(|(what, of)| match what {
        "fun" => Some(Line::Function(of.to_owned())),
        "obj" => Some(Line::Object(of.to_owned())),
        "src" => Some(source(of)),
        _ => None,
    });
    parsed.ok_or_else(|| Problem::at(at, "a frame is fun:NAME, obj:PATH, src:FILE[:LINE] or ..."))
}

fn source(of: &str) -> Line {
    let numbered = of.rsplit_once(':');
    let numbered = numbered.and_then(|(file, line)| Some((file, line.parse().ok()?)));
    match numbered {
        Some((file, line)) => Line::Source(file.to_owned(), Some(line)),
        None => Line::Source(of.to_owned(), None),
    }
}

impl Pattern {
    /// Whether it matches `stack`, from its innermost frame on; outer frames may be any.
    pub(super) fn matches(&self, stack: &Stack<'_>) -> bool {
        // What is not graded may be of any kind.
        let kind = stack.kind;
        let is_of_kind = |kinds: &Vec<Kind>| match kind {
            Kind::Unmatched => !kinds.is_empty(),
            _ => kinds.contains(&kind),
        };
        self.kinds.as_ref().is_none_or(is_of_kind)
            && stack.ways.iter().any(|calls| self.matches_calls(calls))
    }

    fn matches_calls(&self, calls: &[Call<'_>]) -> bool {
        let is_any = |line: &Line| *line == Line::Any;
        is_like(&self.lines, calls, End::Start, is_any, Line::fits)
    }
}

/// What valgrind takes for a name that is not known.
const UNKNOWN: &str = "???";

impl Line {
    fn fits(&self, call: &Call<'_>) -> bool {
        let frame = match (self, call) {
            (Line::Function(pattern), Call::Allocator(function, is_operator)) => {
                return names(function, *is_operator).any(|name| matches(pattern, name));
            }
            // Any library may have it.
            (Line::Object(pattern), Call::Allocator(..)) => return pattern == "*",
            (_, Call::Allocator(..)) => return false,
            (_, Call::Frame(place)) => place.frame,
        };
        match (self, call) {
            (Line::Function(pattern), _) => {
                let names = [frame.symbol.as_deref(), frame.function.as_deref()];
                let mut names = names.into_iter().flatten().peekable();
                let is_unknown = names.peek().is_none() && matches(pattern, UNKNOWN);
                is_unknown || names.any(|name| matches(pattern, name))
            }
            (Line::Object(pattern), Call::Frame(place)) => {
                matches(pattern, place.module.map_or(UNKNOWN, |module| &module.path))
            }
            (Line::Source(pattern, line), _) => {
                let file = frame.file.as_deref().unwrap_or(UNKNOWN);
                let base = file.rsplit('/').next().unwrap_or(file);
                let is_at = line.is_none() || *line == frame.line;
                is_at && (matches(pattern, file) || matches(pattern, base))
            }
            _ => false,
        }
    }
}
