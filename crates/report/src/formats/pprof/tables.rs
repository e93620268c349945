//! What samples refer to by number: texts, functions, mappings, locations.

use std::collections::HashMap;

use super::profile;
use super::wire::Message;
use crate::formats::frames::{NO_STACK, in_file, in_process, title};
use crate::names::printable;
use crate::{FrameId, ModuleId, Place, Report, Site};

/// The tables of one profile; all ids but those of texts begin at 1.
pub(super) struct Tables<'a> {
    report: &'a Report,
    texts: Texts,
    functions: HashMap<(u64, u64), u64>,
    /// By the frames that are inlined into one another.
    locations: HashMap<&'a [FrameId], u64>,
    pseudo: HashMap<&'static str, u64>,
    /// In order of their ids.
    mappings: Vec<Mapping>,
    written: Message,
}

/// A module, and what is known of all its frames.
struct Mapping {
    module: ModuleId,
    has_functions: bool,
    has_files: bool,
    has_lines: bool,
}

impl<'a> Tables<'a> {
    pub(super) fn new(report: &'a Report) -> Tables<'a> {
        let mut tables = Tables {
            report,
            texts: Texts::default(),
            functions: HashMap::new(),
            locations: HashMap::new(),
            pseudo: HashMap::new(),
            mappings: Vec::new(),
            written: Message::default(),
        };
        tables.text("");
        // The first one is taken to be the program.
        let file = report.target.file();
        let is_program = |module: &crate::Module| module.path == file;
        if let Some(program) = report.modules.iter().position(is_program) {
            tables.mapping(ModuleId(program as u32));
        }
        tables
    }

    pub(super) fn text(&mut self, text: &str) -> u64 {
        self.texts.number(text)
    }

    /// The locations of a stack, innermost first: one for each call, whatever is inlined there.
    pub(super) fn locations(&mut self, site: &'a Site) -> Vec<u64> {
        let calls = self.report.tables().calls(&site.frames);
        let locations: Vec<_> = calls.map(|call| self.location(call)).collect();
        match locations.is_empty() {
            true => vec![self.pseudo(NO_STACK)],
            false => locations,
        }
    }

    fn location(&mut self, call: &'a [FrameId]) -> u64 {
        let next = (self.locations.len() + self.pseudo.len()) as u64 + 1;
        let id = *self.locations.entry(call).or_insert(next);
        if id == next {
            self.write_location(id, call);
        }
        id
    }

    /// A location for what is no code.
    pub(super) fn pseudo(&mut self, name: &'static str) -> u64 {
        let next = (self.locations.len() + self.pseudo.len()) as u64 + 1;
        let id = *self.pseudo.entry(name).or_insert(next);
        if id == next {
            let function = self.function(name, "");
            let mut line = Message::default();
            line.number(1, function);
            let mut location = Message::default();
            location.number(1, id).message(4, &line);
            self.written.message(profile::LOCATION, &location);
        }
        id
    }

    fn write_location(&mut self, id: u64, call: &[FrameId]) {
        let places = self.report.tables().stack(call);
        let mut location = Message::default();
        location.number(1, id);
        if let Some(place) = places.last() {
            let module = place.frame.module.filter(|_| place.module.is_some());
            let mapping = module.map(|module| self.mapping(module));
            let address = match mapping {
                Some(_) => in_file(place),
                None => in_process(place),
            };
            location.number(2, mapping.unwrap_or_default());
            location.number(3, address.unwrap_or_default());
        }
        for place in &places {
            self.note(place);
            // pprof may find the name by itself.
            let is_nameless = place.frame.function.is_none() && place.frame.file.is_none();
            if is_nameless && places.len() == 1 && place.frame.offset.is_some() {
                continue;
            }
            let function = self.function_of(place);
            let mut line = Message::default();
            line.number(1, function);
            line.number(2, place.frame.line.unwrap_or_default().into());
            location.message(4, &line);
        }
        self.written.message(profile::LOCATION, &location);
    }

    fn function_of(&mut self, place: &Place<'_>) -> u64 {
        let file = place.frame.file.as_deref().unwrap_or_default();
        self.function(&title(place), file)
    }

    fn function(&mut self, name: &str, file: &str) -> u64 {
        let key = (self.text(name), self.text(&printable(file)));
        let next = self.functions.len() as u64 + 1;
        let id = *self.functions.entry(key).or_insert(next);
        if id == next {
            let mut function = Message::default();
            function.number(1, id).number(2, key.0).number(4, key.1);
            self.written.message(profile::FUNCTION, &function);
        }
        id
    }

    fn mapping(&mut self, module: ModuleId) -> u64 {
        let known = self.mappings.iter().position(|one| one.module == module);
        let at = known.unwrap_or_else(|| {
            self.mappings.push(Mapping {
                module,
                has_functions: true,
                has_files: true,
                has_lines: true,
            });
            self.mappings.len() - 1
        });
        at as u64 + 1
    }

    /// What a frame lacks, its mapping does not have for all.
    fn note(&mut self, place: &Place<'_>) {
        let frame = place.frame;
        let mut mappings = self.mappings.iter_mut();
        if let Some(mapping) = mappings.find(|one| Some(one.module) == frame.module) {
            mapping.has_functions &= frame.function.is_some();
            mapping.has_files &= frame.file.is_some();
            mapping.has_lines &= frame.line.is_some();
        }
    }

    /// Everything that was referred to.
    pub(super) fn write(mut self, profile: &mut Message) {
        for (id, mapping) in (1..).zip(std::mem::take(&mut self.mappings)) {
            let Some(module) = self.report.tables().module(mapping.module) else {
                continue;
            };
            let (path, build_id) = (&module.path, module.build_id.as_deref());
            let mut message = Message::default();
            message.number(1, id);
            message.number(5, self.text(&printable(path)));
            message.number(6, self.text(build_id.unwrap_or_default()));
            message.number(7, mapping.has_functions.into());
            message.number(8, mapping.has_files.into());
            message.number(9, mapping.has_lines.into());
            // With names come those of what is inlined.
            message.number(10, mapping.has_functions.into());
            self.written.message(profile::MAPPING, &message);
        }
        profile.append(self.written);
        for text in self.texts.in_order() {
            profile.bytes(profile::STRING_TABLE, text.as_bytes());
        }
    }
}

/// Texts, each once. The first is empty.
#[derive(Default)]
struct Texts(HashMap<String, u64>);

impl Texts {
    fn number(&mut self, text: &str) -> u64 {
        if let Some(&number) = self.0.get(text) {
            return number;
        }
        let number = self.0.len() as u64;
        self.0.insert(text.to_owned(), number);
        number
    }

    fn in_order(self) -> Vec<String> {
        let mut texts: Vec<_> = self.0.into_iter().collect();
        texts.sort_by_key(|(_, number)| *number);
        texts.into_iter().map(|(text, _)| text).collect()
    }
}
