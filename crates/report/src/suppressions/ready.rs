//! Suppressions that are ready to be used, for what a report lists.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;

use super::stack::operators;
use crate::names::{last_part, printable, short};
use crate::{Format, Kind, Place, Report, Site};

/// Most lines of frames in a suppression: valgrind takes no more than 24.
const MOST: usize = 20;

/// Stands for any frames.
const ANY: &str = "...";

/// Frames of the user's own code that tell a leak from others.
const OWN: usize = 4;

/// A suppression for each site, in valgrind's form. Names in it are those that stay when the
/// program is built anew.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ready;

impl Format for Ready {
    fn write(&self, reports: &[Report], out: &mut dyn io::Write) -> io::Result<()> {
        out.write_all(ready(reports).as_bytes())
    }
}

pub(super) fn ready(reports: &[Report]) -> String {
    let mut all = BTreeSet::new();
    let mut text = String::new();
    for report in reports {
        let sites = report.sites.iter();
        for site in sites.filter(|site| site.kind != Kind::Runtime) {
            // What no frame names, would match everything.
            let Some(body) = body(site, report) else {
                continue;
            };
            if all.insert(body.clone()) {
                let name = name(site, report);
                let _ = writeln!(text, "{{\n   {name}\n   Memcheck:Leak\n{body}}}"); // to a string
            }
        }
    }
    text
}

/// `malloc in leak_here`.
fn name(site: &Site, report: &Report) -> String {
    let place = site.culprit.or(site.frames.first().copied());
    let place = place.and_then(|id| report.tables().place(id));
    let caller = place.map(|place| match (&place.frame.function, place.module) {
        (Some(function), _) => short(function),
        (None, Some(module)) => last_part(&module.path).to_owned(),
        (None, None) => "unknown code".to_owned(),
    });
    let caller = caller.unwrap_or_else(|| "unknown code".to_owned());
    one_line(&format!("{} in {caller}", site.function))
}

fn body(site: &Site, report: &Report) -> Option<String> {
    let mut lines = vec![match site.kind {
        // Not graded: there is no kind to name.
        Kind::Unmatched | Kind::Runtime => String::new(),
        kind => format!("match-leak-kinds: {}", kind.name()),
    }];
    let (operators, rest) = operators(site, report.tables());
    lines.push(format!("fun:{}", called(site, operators.last())));
    if !rest.is_empty() {
        // Tools differ in how much of it they list.
        lines.push(ANY.to_owned());
    }
    let (begin, mut own) = (lines.len(), 0);
    for place in report.tables().places(&site.frames).take(MOST) {
        lines.push(line(&place));
        own += usize::from(place.frame.own == Some(true));
        let is_last = place.frame.function.as_deref() == Some("main");
        if own == OWN || is_last {
            break;
        }
    }
    let frames = lines.get(begin..).unwrap_or_default();
    let is_told_apart = frames.iter().any(|line| line != ANY);
    lines.retain(|line| !line.is_empty());
    let lines = lines.iter().map(|line| {
        format!(
            "   {}
",
            one_line(line)
        )
    });
    is_told_apart.then(|| lines.collect())
}

/// What stands for the function that was called.
fn called(site: &Site, operator: Option<&Place<'_>>) -> String {
    match operator {
        // new[] may have called new at its end, which leaves no frame.
        Some(operator) => match operator.frame.symbol.as_deref().and_then(|of| of.get(4..)) {
            Some(rest) => format!("_Zn?{rest}"),
            None => "_Zn*".to_owned(),
        },
        None if site.function.starts_with("operator new") => "_Zn*".to_owned(),
        None if site.function.contains(", ") => "*".to_owned(),
        None => site.function.clone(),
    }
}

/// What stands for a frame.
fn line(place: &Place<'_>) -> String {
    let frame = place.frame;
    match (
        frame.symbol.as_ref().or(frame.function.as_ref()),
        place.module,
    ) {
        (Some(name), _) => format!("fun:{}", stable(name)),
        (None, Some(module)) => format!("obj:*/{}", without_version(last_part(&module.path))),
        (None, None) => ANY.to_owned(),
    }
}

/// A name without what compilers make up: the hash of a Rust function, the number of a copy.
fn stable(name: &str) -> String {
    const COPIES: &[&str] = &[".constprop.", ".isra.", ".part.", ".cold", ".llvm."];
    let copies = COPIES.iter().filter_map(|copy| name.find(copy));
    let (start, end) = match copies.filter(|&at| at > 0).min() {
        Some(at) => (name.split_at(at).0, "*"),
        None => (name, ""),
    };
    let hashed = start.strip_suffix('E').and_then(|start| {
        let (start, hash) = start.split_at_checked(start.len().checked_sub(19)?)?;
        let digits = hash.strip_prefix("17h")?;
        digits
            .bytes()
            .all(|c| c.is_ascii_hexdigit())
            .then_some(start)
    });
    match hashed {
        Some(start) => format!("{start}17h*"),
        None => format!("{start}{end}"),
    }
}

/// `libX11.so*` of `libX11.so.6.4`.
fn without_version(file: &str) -> String {
    match file.split_once(".so") {
        Some((name, _)) => format!("{name}.so*"),
        None => file.to_owned(),
    }
}

/// What a target calls its functions must not end the line.
fn one_line(text: &str) -> String {
    printable(text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_that_a_new_build_has_too() {
        for (name, expected) in [
            ("_ZN3app4leak17h0123456789abcdefE", "_ZN3app4leak17h*"),
            ("_ZN3app4leakEv", "_ZN3app4leakEv"),
            ("parse.constprop.0", "parse*"),
            ("parse.isra.0.cold", "parse*"),
            ("17hE", "17hE"),
            ("main", "main"),
        ] {
            assert_eq!(stable(name), expected);
        }
        assert_eq!(without_version("libX11.so.6.4.0"), "libX11.so*");
        assert_eq!(without_version("program"), "program");
    }
}
