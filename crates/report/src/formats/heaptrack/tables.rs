//! What blocks refer to by number: texts, places in the code, traces. All numbers begin at 1.

use std::collections::HashMap;
use std::io::{self, Write};

use crate::formats::frames::{NO_STACK, TRUNCATED, in_file, in_process, title};
use crate::names::printable;
use crate::{FrameId, Place, Report, Site};

/// What has been written.
pub(super) struct Tables<'a> {
    report: &'a Report,
    texts: HashMap<String, u64>,
    /// By the frames that are inlined into one another.
    places: HashMap<&'a [FrameId], u64>,
    pseudo: HashMap<&'static str, u64>,
    /// By place and parent.
    traces: HashMap<(u64, u64), u64>,
}

impl<'a> Tables<'a> {
    pub(super) fn new(report: &'a Report) -> Tables<'a> {
        Tables {
            report,
            texts: HashMap::new(),
            places: HashMap::new(),
            pseudo: HashMap::new(),
            traces: HashMap::new(),
        }
    }

    /// The trace of a site's stack.
    pub(super) fn trace(&mut self, site: &'a Site, out: &mut impl Write) -> io::Result<u64> {
        let calls: Vec<_> = self.report.tables().calls(&site.frames).collect();
        let mut trace = 0;
        if site.truncated.is_some() {
            let place = self.pseudo(TRUNCATED, out)?;
            trace = self.step(place, trace, out)?;
        }
        for call in calls.iter().rev() {
            let place = self.place(call, out)?;
            trace = self.step(place, trace, out)?;
        }
        if calls.is_empty() {
            let place = self.pseudo(NO_STACK, out)?;
            trace = self.step(place, trace, out)?;
        }
        Ok(trace)
    }

    fn step(&mut self, place: u64, parent: u64, out: &mut impl Write) -> io::Result<u64> {
        let next = self.traces.len() as u64 + 1;
        let trace = *self.traces.entry((place, parent)).or_insert(next);
        if trace == next {
            writeln!(out, "t {place:x} {parent:x}")?;
        }
        Ok(trace)
    }

    fn pseudo(&mut self, name: &'static str, out: &mut impl Write) -> io::Result<u64> {
        let next = (self.places.len() + self.pseudo.len()) as u64 + 1;
        let number = *self.pseudo.entry(name).or_insert(next);
        if number == next {
            let name = self.text(name, out)?;
            writeln!(out, "i 0 0 {name:x}")?;
        }
        Ok(number)
    }

    fn place(&mut self, call: &'a [FrameId], out: &mut impl Write) -> io::Result<u64> {
        let next = (self.places.len() + self.pseudo.len()) as u64 + 1;
        let number = *self.places.entry(call).or_insert(next);
        if number == next {
            self.write_place(call, out)?;
        }
        Ok(number)
    }

    /// Address and module, then function, file and line of each frame, the innermost first.
    fn write_place(&mut self, call: &[FrameId], out: &mut impl Write) -> io::Result<()> {
        let places = self.report.tables().stack(call);
        let last = places.last();
        let address = last.and_then(|place| in_process(place).or_else(|| in_file(place)));
        let module = last.and_then(|place| place.module);
        let module = match module {
            Some(module) => self.text(&module.path, out)?,
            None => 0,
        };
        let mut line = format!("i {:x} {module:x}", address.unwrap_or_default());
        let is_nameless = |place: &Place<'_>| {
            place.frame.function.is_none() && place.frame.file.is_none() && module != 0
        };
        if !places.iter().all(is_nameless) {
            for place in &places {
                let function = self.text(&title(place), out)?;
                let file = match &place.frame.file {
                    Some(file) => self.text(file, out)?,
                    None => 0,
                };
                let number = place.frame.line.unwrap_or_default();
                line.push_str(&format!(" {function:x} {file:x} {number:x}"));
            }
        }
        writeln!(out, "{line}")
    }

    fn text(&mut self, text: &str, out: &mut impl Write) -> io::Result<u64> {
        let text = printable(text);
        if let Some(&number) = self.texts.get(&*text) {
            return Ok(number);
        }
        let number = self.texts.len() as u64 + 1;
        writeln!(out, "s {:x} {text}", text.len())?;
        self.texts.insert(text.into_owned(), number);
        Ok(number)
    }
}
