//! Gives frames their names, each once.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use leaktap_api::FunctionId;
use leaktap_image::Module as Loaded;
use leaktap_report::{
    Frame, FrameId, Hex, Module, ModuleId, Tables, caller_of_allocator, is_whole,
};
use leaktap_symbols::{Name, Resolver};
use leaktap_unwind as unwind;
use leaktap_unwind::End;

use crate::result::guesses::Guesses;
use crate::target::Target;

/// Most frames of all stacks, and most of them that have names: a target can write millions of
/// stacks into what it shares with us. With as many, leaktap needs a gigabyte.
const MOST_FRAMES: usize = 1 << 25;
const MOST_NAMES: usize = 1 << 20;

/// Why a call site has no stack.
const UNKNOWN: &str =
    "the target has written over what was noted, or has more than a million of them";
const TOO_MANY: &str = "there are more than 32 million frames";

/// What was called there: nobody knows.
const NO_FUNCTION: FunctionId = FunctionId(u8::MAX);

/// Gives frames their names, and numbers to all that have some.
pub(super) struct Namer<'a> {
    pub(super) target: &'a Target,
    resolver: &'a mut Resolver,
    pub(super) modules: Vec<Module>,
    /// By first byte and file, the numbers of `modules`.
    numbers: HashMap<(u64, usize), ModuleId>,
    pub(super) frames: Vec<Frame>,
    /// Of raw frames, the numbers of `frames`.
    named: HashMap<u64, Range<u32>>,
    /// How many may still be listed.
    frames_left: usize,
    guesses: Guesses<'a>,
}

/// A stack with names.
#[derive(Debug)]
pub(super) struct Stack {
    /// The frames of the allocator, innermost first.
    pub(super) allocator: Vec<FrameId>,
    /// Those behind them.
    pub(super) frames: Vec<FrameId>,
    /// Why it breaks off, if it does.
    pub(super) truncated: Option<String>,
    /// What was called.
    pub(super) function: FunctionId,
}

impl Stack {
    fn none(why: &str, function: FunctionId) -> Stack {
        Stack {
            allocator: Vec::new(),
            frames: Vec::new(),
            truncated: Some(why.to_owned()),
            function,
        }
    }
}

impl<'a> Namer<'a> {
    pub(super) fn new(target: &'a Target, resolver: &'a mut Resolver) -> Namer<'a> {
        let loaded = || target.process().modules().all();
        let ids = || (0..).map(ModuleId);
        Namer {
            target,
            resolver,
            modules: loaded().map(module).collect(),
            numbers: loaded().map(key).zip(ids()).collect(),
            frames: Vec::new(),
            named: HashMap::new(),
            frames_left: MOST_FRAMES,
            guesses: Guesses::new(target),
        }
    }

    /// What numbers of frames lead to.
    pub(super) fn tables(&self) -> Tables<'_> {
        Tables {
            modules: &self.modules,
            frames: &self.frames,
        }
    }

    /// The stack that the books have by this number.
    pub(super) fn stack(&mut self, id: u32) -> Stack {
        let Some((mut raw, end, function)) = self.target.books.stack(id) else {
            return Stack::none(UNKNOWN, NO_FUNCTION);
        };
        let Some(left) = self.frames_left.checked_sub(raw.len()) else {
            return Stack::none(TOO_MANY, function);
        };
        self.frames_left = left;
        // As where a walk has ended right there: both are one site.
        let end = match self.guesses.cut(&mut raw) {
            true => End::NoRule,
            false => end,
        };
        let why = self.why(end, raw.last());
        mark_handlers(&mut raw);
        let mut allocator: Vec<_> = raw.into_iter().flat_map(|raw| self.names(raw)).collect();
        let places = self.tables().stack(&allocator);
        let begin = caller_of_allocator(&places);
        let truncated = why.filter(|_| !is_whole(&places));
        Stack {
            frames: allocator.split_off(begin),
            allocator,
            truncated,
            function,
        }
    }

    /// Why a stack with that last frame breaks off, if it does.
    fn why(&self, end: End, last: Option<&u64>) -> Option<String> {
        let modules = self.target.process().modules();
        let module = || modules.module_at(unwind::Frame::from_raw(*last?).lookup());
        match (end, module()) {
            (End::Root, _) => None,
            (End::Unsupported, Some(module)) => {
                let name = module.path().file_name().unwrap_or_default();
                Some(format!("{end} in {}", name.display()))
            }
            _ => Some(end.to_string()),
        }
    }

    /// The numbers of the functions at a raw frame, innermost first.
    pub(super) fn names(&mut self, raw: u64) -> impl Iterator<Item = FrameId> + use<> {
        let known = self.named.get(&raw).cloned();
        let ids = known.unwrap_or_else(|| {
            let is_full = self.named.len() >= MOST_NAMES;
            // Those beyond are one, of which nothing is known.
            let raw = if is_full { NAMELESS } else { raw };
            let known = self.named.get(&raw).cloned();
            known.unwrap_or_else(|| self.add(raw))
        });
        ids.map(FrameId)
    }

    fn add(&mut self, raw: u64) -> Range<u32> {
        let named = match raw {
            NAMELESS => vec![Frame::default()],
            _ if raw & HANDLER != 0 => {
                let frame = unwind::Frame::from_raw(raw & !HANDLER);
                let (_, place) = self.place(frame);
                vec![called(place, SIGNAL_HANDLER)]
            }
            _ => self.functions(unwind::Frame::from_raw(raw)),
        };
        let start = self.frames.len() as u32; // a few for each of MOST_NAMES
        self.frames.extend(named);
        let ids = start..self.frames.len() as u32;
        self.named.insert(raw, ids.clone());
        ids
    }

    fn functions(&mut self, frame: unwind::Frame) -> Vec<Frame> {
        let (module, place) = self.place(frame);
        let Some(module) = module else {
            return vec![place];
        };
        let (file, at) = (module.file(), module.svma(frame.address()));
        if file.context_start() == Some(at) {
            return vec![called(place, "__start_context")];
        }
        let names = self.resolver.names(file, module.svma(frame.lookup()));
        names.into_iter().map(|name| named(&place, name)).collect()
    }

    /// The module of a frame, and all that is known of it but its name.
    fn place(&self, frame: unwind::Frame) -> (Option<&'a Loaded>, Frame) {
        let bare = Frame {
            address: Some(Hex(frame.address().get())),
            by_frame_pointer: frame.by_frame_pointer(),
            interrupted: frame.address() == frame.lookup(),
            ..Frame::default()
        };
        let modules = self.target.process().modules();
        let Some(module) = modules.module_at(frame.lookup()) else {
            return (None, bare);
        };
        let place = Frame {
            module: self.numbers.get(&key(module)).copied(),
            offset: Some(Hex(module.offset_of(frame.address()))),
            ..bare
        };
        (Some(module), place)
    }
}

/// In raw frames, marks those that signal handlers return to: they are right before those that
/// signals have interrupted.
fn mark_handlers(raw: &mut [u64]) {
    for at in 1..raw.len() {
        let frame = unwind::Frame::from_raw(raw.get(at).copied().unwrap_or_default());
        if frame.address() == frame.lookup()
            && let Some(before) = raw.get_mut(at - 1)
        {
            *before |= HANDLER;
        }
    }
}

/// Marks a raw frame that a signal handler returns to; the kernel gives no such addresses.
const HANDLER: u64 = 1 << 61;

/// As gdb has it.
const SIGNAL_HANDLER: &str = "<signal handler called>";

fn called(place: Frame, function: &str) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        ..place
    }
}

/// What the kernel gives to nobody: no frame has it.
const NAMELESS: u64 = u64::MAX;

fn named(place: &Frame, name: Name) -> Frame {
    Frame {
        function: name.function,
        symbol: name.symbol,
        file: name.file,
        line: name.line,
        inlined: name.inlined,
        ..place.clone()
    }
}

fn module(loaded: &Loaded) -> Module {
    let base = loaded.range().start;
    Module {
        path: loaded.path().display().to_string(),
        build_id: loaded.file().build_id_hex(),
        base: Hex(base.get()),
        svma: Hex(loaded.svma(base).0),
    }
}

/// What tells it apart from all others.
fn key(module: &Loaded) -> (u64, usize) {
    let file = Arc::as_ptr(module.file()).addr();
    (module.range().start.get(), file)
}
