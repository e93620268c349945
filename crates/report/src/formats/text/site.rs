//! A site: its heading, its culprit, and how it came to that.

use std::collections::HashMap;
use std::io::{self, Write};

use super::columns::{fitted, joined, wrapped};
use super::excerpt::excerpt;
use super::likeness::likeness;
use super::story::{Line, Story, story};
use super::{Style, changes};
use crate::formats::frames::in_file;
use crate::names::printable;
use crate::numbers::{bytes, count, exact_bytes, grouped, seconds};
use crate::own::class;
use crate::own::origin::Class;
use crate::reading::Reading;
use crate::selection::is_growing;
use crate::{Excerpts, FrameId, Place, Report, Site, Source, Tables};

/// Widest column of function names.
const WIDEST: usize = 48;

/// What stands before the name of a frame.
const INDENT: &str = "     ";
const FROM: &str = "       from ";
const CALLS: &str = "       calls ";
const SEE: &str = "       see ";

/// Prints sites, which share frames.
pub(super) struct Sites<'a> {
    pub(super) report: &'a Report,
    pub(super) reading: Reading<'a>,
    pub(super) style: Style,
    pub(super) classes: Vec<Class>,
    excerpts: Option<&'a Excerpts>,
    known: HashMap<FrameId, Named>,
}

/// What is printed of a frame.
#[derive(Clone)]
struct Named {
    name: String,
    place: String,
    /// What else there is to say.
    marks: String,
}

impl<'a> Sites<'a> {
    pub(super) fn new(
        report: &'a Report,
        reading: Reading<'a>,
        style: Style,
        excerpts: Option<&'a Excerpts>,
    ) -> Sites<'a> {
        Sites {
            report,
            reading,
            style,
            classes: crate::own::classes(report),
            excerpts,
            known: HashMap::new(),
        }
    }

    pub(super) fn print(
        &mut self,
        number: usize,
        site: &Site,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        self.heading(number, site, out)?;
        let tables = self.report.tables();
        if let Some(story) = story(site, tables, &self.classes) {
            self.culprit(&story, out)?;
            match self.style.verbose {
                true => self.whole(site, out)?,
                false => self.story(&story, tables, out)?,
            }
            if let Some(text) = likeness(number, site, self.report, &self.classes) {
                let text = wrapped(&format!("       {text}"), 9, self.style.width);
                writeln!(out, "{}", self.style.dim(&text))?;
            }
        }
        let Some(why) = &site.truncated else {
            return Ok(());
        };
        let why = format!("(the stack breaks off: {})", printable(why));
        writeln!(out, "{INDENT}{}", self.style.dim(&why))
    }

    fn heading(&self, number: usize, site: &Site, out: &mut dyn Write) -> io::Result<()> {
        // The report keeps no sizes of single blocks, only their sum.
        let average = match site.bytes.checked_div(site.blocks) {
            Some(size) if site.blocks > 1 => format!(", {} on average", bytes(size)),
            _ => String::new(),
        };
        let what = match site.source {
            Source::Mapping => "region",
            Source::Heap | Source::Before => "block",
        };
        let sum = exact_bytes(site.bytes);
        let sum = format!("{sum} in {}{average}", count(site.blocks, what));
        let left = || format!("{}, {}{}", site.kind.name(), ages(site), growth(site));
        let (size, state) = match &site.change {
            Some(change) => changes::amount(site, change, self.report.mode),
            None => (sum, left()),
        };
        let told = site
            .allocated_blocks
            .filter(|_| self.style.verbose && site.change.is_none());
        let allocated = told.map(|blocks| format!(", of {} allocated there", grouped(blocks)));
        let allocated = allocated.unwrap_or_default();
        let family = site.family.as_deref();
        let family = family.filter(|_| !self.report.families.is_empty());
        let function = match family {
            Some(family) => format!("{} of {family}", site.function),
            None => site.function.clone(),
        };
        let function = format!("({}{})", printable(&function), stacks(site));
        let pieces = [
            format!("{number:>3}. {size}{allocated}"),
            state,
            function.clone(),
        ];
        let line = joined(&pieces, INDENT.len(), self.style.width);
        let line = line.replacen(&size, &self.style.strong(&size), 1);
        let line = line.replacen(&function, &self.style.dim(&function), 1);
        writeln!(out, "\n{line}")
    }

    fn culprit(&mut self, story: &Story, out: &mut dyn Write) -> io::Result<()> {
        let id = story.culprit;
        let named = self.named(id);
        let style = self.style;
        self.frame(INDENT, &named, 0, |name| style.strong(name), out)?;
        if let (Some(excerpts), Some(frame)) = (self.excerpts, self.report.tables().frame(id)) {
            excerpt(frame, excerpts, style, out)?;
        }
        // What a runtime has there, nobody has to know.
        let is_of_interest = class(&self.classes, id) <= Class::Library;
        let place = self.report.tables().place(id).filter(|_| is_of_interest);
        let callers = story.callers.iter().filter_map(|line| match line {
            Line::Frame(id, _) => self.report.tables().place(*id),
            Line::Folded(_) => None,
        });
        match place.and_then(|place| command(&place, callers)) {
            Some(command) => writeln!(out, "{SEE}{}", printable(&command)),
            None => Ok(()),
        }
    }

    fn story(&mut self, story: &Story, tables: Tables<'_>, out: &mut dyn Write) -> io::Result<()> {
        if let Some((called, folded)) = &story.calls {
            let name = tables.place(*called).map(|place| self.reading.row(&place));
            let name = name.unwrap_or_default();
            let place = match folded {
                Some(folded) => format!("… {folded}"),
                None if name.is_empty() => self.named(*called).place,
                None => String::new(),
            };
            let named = Named::new(name, place);
            self.frame(CALLS, &named, 0, str::to_owned, out)?;
        }
        let names = story.callers.iter().map(|line| match line {
            Line::Frame(id, _) => width(&self.named(*id).name),
            Line::Folded(_) => 0,
        });
        let widest = names.max().unwrap_or(0).min(WIDEST);
        for line in &story.callers {
            match line {
                Line::Frame(id, times) => {
                    let mut named = self.named(*id);
                    if *times > 1 {
                        named.marks = format!("{} ({times} times)", named.marks);
                    }
                    self.frame(FROM, &named, widest, str::to_owned, out)?;
                }
                Line::Folded(folded) => {
                    let named = Named::new(String::new(), format!("… {folded}"));
                    self.frame(FROM, &named, 0, str::to_owned, out)?;
                }
            }
        }
        match story.more {
            0 => Ok(()),
            more => writeln!(out, "{FROM}… {} (-v)", count(more as u64, "more frame")),
        }
    }

    /// All frames, innermost first.
    fn whole(&mut self, site: &Site, out: &mut dyn Write) -> io::Result<()> {
        if site.frames.len() < 2 {
            return Ok(());
        }
        let names = site.frames.iter().map(|&id| width(&self.named(id).name));
        let widest = names.max().unwrap_or(0).min(WIDEST);
        for &id in &site.frames {
            let named = self.named(id);
            self.frame("       ", &named, widest, str::to_owned, out)?;
        }
        Ok(())
    }

    fn frame(
        &self,
        before: &str,
        named: &Named,
        widest: usize,
        styled: impl Fn(&str) -> String,
        out: &mut dyn Write,
    ) -> io::Result<()> {
        let room = self
            .style
            .width
            .map(|columns| columns.saturating_sub(width(before)));
        let (name, place) = fitted(
            &named.name,
            &format!("{}{}", named.place, named.marks),
            room,
        );
        let marks = place.strip_prefix(&*named.place).unwrap_or_default();
        let place = place.strip_suffix(marks).unwrap_or(&place);
        let (place, marks) = (printable(place), self.style.dim(&printable(marks)));
        if name.is_empty() || place.is_empty() {
            return writeln!(out, "{before}{}{place}{marks}", styled(&printable(&name)));
        }
        let padding = match room {
            Some(room) => {
                let free =
                    room.saturating_sub(width(&name) + width(&place) + width(&named.marks) + 2);
                widest.saturating_sub(width(&name)).min(free)
            }
            None => widest.saturating_sub(width(&name)),
        };
        let name = styled(&printable(&name));
        writeln!(out, "{before}{name}{:padding$}  {place}{marks}", "")
    }

    fn named(&mut self, id: FrameId) -> Named {
        let (report, reading, style) = (self.report, self.reading, self.style);
        let named = self.known.entry(id).or_insert_with(|| {
            let place = report.tables().place(id);
            place.map_or_else(Named::none, |place| Named {
                name: reading.row(&place),
                place: reading.position(&place),
                marks: marks(&place, style),
            })
        });
        named.clone()
    }
}

impl Named {
    fn new(name: String, place: String) -> Named {
        let marks = String::new();
        Named { name, place, marks }
    }

    fn none() -> Named {
        Named::new(String::new(), String::new())
    }
}

fn width(text: &str) -> usize {
    text.chars().count()
}

fn marks(place: &Place<'_>, style: Style) -> String {
    let frame = place.frame;
    let id = place.module.and_then(|module| module.build_id.as_deref());
    let id = match (id, style.verbose) {
        (Some(id), true) => format!(" [{id}]"),
        _ => String::new(),
    };
    let inlined = match frame.inlined && style.verbose {
        true => " (inlined)",
        false => "",
    };
    let guessed = match frame.by_frame_pointer {
        true => " (by frame pointer)",
        false => "",
    };
    format!("{id}{inlined}{guessed}")
}

/// What names a place that has no name, and those of its callers in the same module, with a file
/// that has its symbols.
fn command<'a>(place: &Place<'a>, callers: impl Iterator<Item = Place<'a>>) -> Option<String> {
    let (first, module) = (address(place)?, place.module?);
    let callers = callers.filter(|caller| caller.module == place.module);
    let callers = callers.filter_map(|caller| address(&caller));
    let addresses: Vec<_> = [first].into_iter().chain(callers).collect();
    let id = module.build_id.as_deref();
    let id = id.map(|id| format!(", build id {id}")).unwrap_or_default();
    let (path, addresses) = (&module.path, addresses.join(" "));
    Some(format!(
        "addr2line -Cfipe {path} {addresses} (with its symbols{id})"
    ))
}

/// Where the call of a frame without a name is in the file of its module.
fn address(place: &Place<'_>) -> Option<String> {
    let frame = place.frame;
    if frame.function.is_some() || frame.file.is_some() {
        return None;
    }
    Some(format!("{:#x}", in_file(place)?))
}

/// How many stacks lead to the culprit, and which of them grow, where some do.
fn stacks(site: &Site) -> String {
    let Some(stacks) = site.stacks else {
        return String::new();
    };
    let text = site.growth.as_ref().and_then(|growth| growth.text.as_ref());
    let which = match site.growing_stacks {
        _ if text.is_none() || !is_growing(site) => "",
        0 => ": they grow together",
        1 => ": the one shown grows",
        growing if growing < stacks => ": of those that grow, the largest is shown",
        _ => ": all grow",
    };
    format!(", {}{which}", count(stacks, "stack"))
}

fn growth(site: &Site) -> String {
    let growth = site.growth.as_ref();
    let Some((growth, pattern)) = growth.and_then(|growth| Some((growth, growth.pattern?))) else {
        return String::new();
    };
    let text = growth.text.as_deref().map(printable);
    format!(", {}", text.as_deref().unwrap_or(pattern.name()))
}

fn ages(site: &Site) -> String {
    let (youngest, oldest) = (seconds(site.youngest), seconds(site.oldest));
    if youngest == oldest {
        return format!("{oldest} old");
    }
    format!("{youngest} to {oldest} old")
}
