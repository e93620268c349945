//! Frames that nothing vouches for.

use std::collections::HashMap;

use leaktap_arch::{LONGEST_CALL, ends_with_call};
use leaktap_image::{Mapping, mappings};
use leaktap_memory::Addr;
use leaktap_unwind::Frame;

use crate::target::Target;

/// Tells which frames cannot be any: a frame pointer that was none has led to a number.
pub(super) struct Guesses<'t> {
    target: &'t Target,
    /// Of raw frames.
    known: HashMap<u64, bool>,
    /// All that is mapped, once it has been needed; nothing of a process that is gone.
    mapped: Option<Option<Vec<Mapping>>>,
}

impl<'t> Guesses<'t> {
    pub(super) fn new(target: &'t Target) -> Guesses<'t> {
        Guesses {
            target,
            known: HashMap::new(),
            mapped: None,
        }
    }

    /// Cuts `raw`, a stack, innermost frame first, where the first frame is that cannot be one.
    /// Returns whether there was any. What call frame information alone has led to is believed, if
    /// it is in a file.
    pub(super) fn cut(&mut self, raw: &mut Vec<u64>) -> bool {
        let frames = || raw.iter().map(|raw| Frame::from_raw(*raw));
        let modules = self.target.process().modules();
        let is_doubtful =
            |frame: Frame| frame.by_frame_pointer() || modules.module_at(frame.lookup()).is_none();
        let Some(first) = frames().position(is_doubtful) else {
            return false;
        };
        // What a signal handler returns to is behind no call.
        let is_interrupted = |frame: Frame| frame.address() == frame.lookup();
        let next = |index: usize| frames().nth(index + 1);
        let mut rest = frames().enumerate().skip(first);
        let wrong = rest.find(|(index, frame)| {
            !self.may_be(*frame) && !next(*index).is_some_and(is_interrupted)
        });
        let wrong = wrong.map(|(index, _)| index);
        raw.truncate(wrong.unwrap_or(raw.len()));
        wrong.is_some()
    }

    fn may_be(&mut self, frame: Frame) -> bool {
        if let Some(known) = self.known.get(&frame.raw()) {
            return *known;
        }
        let may_be = self
            .is_behind_call(frame)
            .unwrap_or_else(|| self.is_in_code(frame));
        self.known.insert(frame.raw(), may_be);
        may_be
    }

    /// Whether a call is right before `frame`, by the file that it is in; nothing without one, and
    /// nothing of what a signal has interrupted, or what a handler returns to.
    fn is_behind_call(&self, frame: Frame) -> Option<bool> {
        let at = frame.address();
        let module = self.target.process().modules().module_at(frame.lookup())?;
        let mut code = module.executable().iter();
        if !code.any(|range| range.contains(&frame.lookup())) {
            return Some(false);
        }
        let before = at.checked_sub(LONGEST_CALL as u64)?;
        let bytes = module.file().bytes_at(module.svma(before), LONGEST_CALL)?;
        let is_call = ends_with_call(&bytes) || frame.lookup() == at;
        Some(is_call)
    }

    /// Whether `frame` is where the program has made code itself, as far as that can be told.
    fn is_in_code(&mut self, frame: Frame) -> bool {
        let target = self.target;
        let read = || {
            let pid = target.tid().get();
            target.exit.is_none().then(|| mappings(pid).ok()).flatten()
        };
        let mapped = self.mapped.get_or_insert_with(read);
        let is_code = |mapping: &Mapping, at: Addr| mapping.perms.exec && mapping.contains(at);
        let Some(mapped) = mapped else { return true };
        mapped
            .iter()
            .any(|mapping| is_code(mapping, frame.lookup()))
    }
}
