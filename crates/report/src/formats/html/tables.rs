//! What processes share: texts and frames, each once.

use std::collections::HashMap;

use serde::Serialize;

use super::columns::Text;
use crate::excerpts::Lines;
use crate::names::printable;
use crate::own::origin::Origin;
use crate::reading::Reading;
use crate::{Excerpts, FrameId, Place, Report};

/// Added to the class of a frame: see [`Frames::marks`].
const INLINED: u8 = 8;
const BY_FRAME_POINTER: u8 = 16;

/// Texts and frames, by their numbers.
#[derive(Debug, Serialize)]
pub(super) struct Tables<'a> {
    texts: Vec<String>,
    frames: Frames,
    /// Lines of source files, by their numbers there.
    sources: Vec<&'a Lines>,
    #[serde(skip)]
    known_texts: HashMap<String, Text>,
    #[serde(skip)]
    known_frames: HashMap<Frame, u32>,
    #[serde(skip)]
    known_sources: HashMap<String, u32>,
    #[serde(skip)]
    excerpts: Option<&'a Excerpts>,
}

/// A column each.
#[derive(Debug, Default, Serialize)]
struct Frames {
    name: Vec<Text>,
    /// The name in full, where that is longer.
    full: Vec<Text>,
    /// The source file, or module and offset.
    file: Vec<Text>,
    line: Vec<u32>,
    /// Which of the sources it is in, and 1; 0 where that is not shown.
    source: Vec<u32>,
    module: Vec<Text>,
    /// Whose code it is, from 0, the user's own, to 4, the system's; [`INLINED`] and
    /// [`BY_FRAME_POINTER`].
    marks: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Frame {
    name: Text,
    full: Text,
    file: Text,
    line: u32,
    source: u32,
    module: Text,
    marks: u8,
}

impl<'a> Tables<'a> {
    /// With the empty text.
    pub(super) fn new(excerpts: Option<&'a Excerpts>) -> Tables<'a> {
        Tables {
            texts: vec![String::new()],
            frames: Frames::default(),
            sources: Vec::new(),
            known_texts: HashMap::from([(String::new(), 0)]),
            known_frames: HashMap::new(),
            known_sources: HashMap::new(),
            excerpts,
        }
    }

    /// The number of `text`, with control characters escaped.
    pub(super) fn text(&mut self, text: &str) -> Text {
        let text = printable(text);
        if let Some(&known) = self.known_texts.get(&*text) {
            return known;
        }
        let next = self.texts.len() as u32;
        self.known_texts.insert(text.clone().into_owned(), next);
        self.texts.push(text.into_owned());
        next
    }

    /// The numbers of all frames of `report`.
    pub(super) fn frames(&mut self, report: &Report, reading: Reading<'_>) -> Vec<u32> {
        let places = report.tables().all();
        places.map(|place| self.frame(&place, reading)).collect()
    }

    /// What stands for frames that are not known.
    pub(super) fn stand_in(&mut self, name: &str) -> u32 {
        let frame = Frame {
            name: self.text(name),
            full: 0,
            file: 0,
            line: 0,
            source: 0,
            module: 0,
            marks: crate::own::origin::Class::System as u8,
        };
        self.number(frame)
    }

    fn frame(&mut self, place: &Place<'_>, reading: Reading<'_>) -> u32 {
        let position = reading.position(place);
        let line = place.frame.file.as_ref().and(place.frame.line);
        let file = line.and_then(|line| position.strip_suffix(&format!(":{line}")));
        let name = reading.name(place);
        let full = place.frame.function.as_deref().unwrap_or_default();
        let inlined = if place.frame.inlined { INLINED } else { 0 };
        let guessed = match place.frame.by_frame_pointer {
            true => BY_FRAME_POINTER,
            false => 0,
        };
        let frame = Frame {
            name: self.text(&name),
            full: self.text(if full == name { "" } else { full }),
            file: self.text(file.unwrap_or(&position)),
            line: line.unwrap_or_default(),
            source: self.source(place).unwrap_or_default(),
            module: self.text(place.module.map_or("", |module| &module.path)),
            marks: Origin::of(place).class as u8 | inlined | guessed,
        };
        self.number(frame)
    }

    /// The number of the lines around that of a frame, and 1.
    fn source(&mut self, place: &Place<'_>) -> Option<u32> {
        let file = place.frame.file.as_deref()?;
        let lines = self.excerpts?.of(file, place.frame.line?)?;
        let next = self.sources.len() as u32 + 1;
        if let Some(&known) = self.known_sources.get(file) {
            return Some(known);
        }
        self.known_sources.insert(file.to_owned(), next);
        self.sources.push(lines);
        Some(next)
    }

    fn number(&mut self, frame: Frame) -> u32 {
        let next = self.frames.name.len() as u32;
        let number = *self.known_frames.entry(frame).or_insert(next);
        if number == next {
            self.frames.name.push(frame.name);
            self.frames.full.push(frame.full);
            self.frames.file.push(frame.file);
            self.frames.line.push(frame.line);
            self.frames.source.push(frame.source);
            self.frames.module.push(frame.module);
            self.frames.marks.push(frame.marks);
        }
        number
    }
}

/// The number in the tables of the frame that a report knows by `id`.
pub(super) fn numbered(frames: &[u32], FrameId(id): FrameId) -> Option<u32> {
    frames.get(id as usize).copied()
}
