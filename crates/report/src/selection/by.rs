//! What makes a group of sites.

use std::collections::HashMap;

use crate::{Frame, FrameId, Kind, Module, ModuleId, Site, Source};

/// What makes a group of sites.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The whole stack, as it reads: unrolled or cloned code is at more than one address.
    #[default]
    Stack,
    /// The place of the innermost frame outside of the allocator: function, file and line.
    Site,
    /// That frame's function.
    Function,
    /// That frame's source file; its module where there is none.
    File,
    /// That frame's module.
    Module,
}

impl By {
    /// What of a frame makes the group; `module` stands for its own. A frame without names stays
    /// what it is, or its module.
    fn place(self, frame: &Frame, module: Option<ModuleId>) -> Frame {
        let bare = Frame {
            module,
            ..Frame::default()
        };
        match self {
            By::Stack if module.is_some() => Frame {
                address: None,
                // With a line, it is not shown.
                offset: frame.offset.filter(|_| frame.line.is_none()),
                module,
                ..frame.clone()
            },
            By::Site if frame.function.is_some() || frame.line.is_some() => Frame {
                function: frame.function.clone(),
                file: frame.file.clone(),
                line: frame.line,
                ..bare
            },
            By::Function if frame.function.is_some() => Frame {
                function: frame.function.clone(),
                ..bare
            },
            By::File if frame.file.is_some() => Frame {
                file: frame.file.clone(),
                ..Frame::default()
            },
            By::File | By::Module if frame.module.is_some() => bare,
            _ => frame.clone(),
        }
    }
}

/// A site, and what makes its group.
pub(super) struct Member {
    /// Frames that stand for those that make the group.
    frames: Vec<FrameId>,
    /// Whole stacks are told apart by how they were made, too.
    by_stack: bool,
    pub(super) site: Site,
}

/// What the sites of one group have in common.
type Group<'a> = (
    &'a [FrameId],
    Kind,
    Source,
    Option<&'a str>,
    Option<(&'a str, Option<&'a str>)>,
);

impl Member {
    pub(super) fn group(&self) -> Group<'_> {
        let site = &self.site;
        let how = || (site.function.as_str(), site.truncated.as_deref());
        (
            &self.frames,
            site.kind,
            site.source,
            site.family.as_deref(),
            self.by_stack.then(how),
        )
    }
}

/// Finds out what makes the group of each site.
pub(super) struct Reducer<'a> {
    by: By,
    /// Of each module, the first one of the same file.
    modules: Vec<ModuleId>,
    frames: &'a mut Vec<Frame>,
    /// By the number of a frame, which one stands for it.
    stand_ins: Vec<Option<FrameId>>,
    /// By what they have in common.
    known: HashMap<Frame, FrameId>,
}

impl Reducer<'_> {
    pub(super) fn new<'a>(by: By, modules: &[Module], frames: &'a mut Vec<Frame>) -> Reducer<'a> {
        let mut first = HashMap::new();
        let modules = (0..).map(ModuleId).zip(modules);
        let modules = modules
            .map(|(id, module)| *first.entry((&module.path, &module.build_id)).or_insert(id));
        Reducer {
            by,
            modules: modules.collect(),
            stand_ins: vec![None; frames.len()],
            frames,
            known: HashMap::new(),
        }
    }

    /// `site` as a member of its group, without what only captures keep. But for whole stacks, only
    /// that part of its stack is left that makes the group.
    pub(super) fn member(&mut self, mut site: Site) -> Member {
        site.ages = Vec::new();
        site.allocator = Vec::new();
        let by_stack = self.by == By::Stack || site.frames.is_empty();
        let part = if by_stack { usize::MAX } else { 1 };
        let part = site.frames.iter().take(part);
        let frames: Vec<_> = part.map(|&frame| self.stand_in(frame)).collect();
        if !by_stack {
            site = Site {
                frames: frames.clone(),
                alike: Vec::new(),
                culprit: None,
                truncated: None,
                ..site
            };
        }
        Member {
            frames,
            by_stack: self.by == By::Stack,
            site,
        }
    }

    /// The frame that stands for this one and all others of its group.
    fn stand_in(&mut self, frame: FrameId) -> FrameId {
        let FrameId(id) = frame;
        let known = self.stand_ins.get(id as usize).copied();
        if let Some(Some(stand_in)) = known {
            return stand_in;
        }
        let Some(of) = self.frames.get(id as usize) else {
            return frame;
        };
        let module = of.module;
        let module = module.and_then(|ModuleId(id)| self.modules.get(id as usize).copied());
        let place = self.by.place(of, module);
        // As many as stacks have, twice at most.
        let next = FrameId(self.frames.len() as u32);
        let stand_in = *self.known.entry(place).or_insert_with_key(|place| {
            // Whole stacks stay as they are.
            if self.by == By::Stack {
                return frame;
            }
            self.frames.push(place.clone());
            next
        });
        if let Some(known) = self.stand_ins.get_mut(id as usize) {
            *known = Some(stand_in);
        }
        stand_in
    }
}
