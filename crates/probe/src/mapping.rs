//! What a call of mmap(2) or its kin did to the program's mappings, as the recorder is told.
//! Whether a breakpoint has seen the call, or the agent has noted it, is all one here.

use leaktap_api::Effect;
use leaktap_memory::{Addr, PAGE};

use crate::record::{Mapped, Recorder};

/// Such a call, which has returned.
pub(crate) struct Mapping<'a> {
    /// The C library's or the allocator's: what it maps is not the program's.
    pub(crate) is_system: bool,
    /// The moment at which it began.
    pub(crate) begun: u64,
    /// The moment at which it had returned: see [`Mapped::moment`].
    pub(crate) moment: u64,
    pub(crate) recorder: &'a mut dyn Recorder,
}

impl Mapping<'_> {
    /// Tells the recorder of `effect`: of what is mapped, `tell` does.
    pub(crate) fn did(&mut self, effect: Effect, mut tell: impl FnMut(&mut dyn Recorder, Mapped)) {
        match effect {
            Effect::Mapped {
                at,
                len,
                protection,
            } => {
                self.mapped(at, len, &mut tell);
                self.protected(at, len, protection);
            }
            Effect::Protected {
                at,
                len,
                protection,
            } => self.protected(at, len, protection),
            Effect::GivenBack { at, len, lazily } => {
                if let Some(len) = in_pages(len) {
                    self.recorder.given_back(Addr::new(at), len, lazily);
                }
            }
            Effect::Unmapped { at, len } => self.unmapped(at, len),
            Effect::Moved { from, to } => {
                self.unmapped(from.0, from.1);
                self.mapped(to.0, to.1, &mut tell);
            }
            Effect::Break { old, new } => self.moved_break(old, new, &mut tell),
            _ => {}
        }
    }

    fn mapped(&mut self, at: u64, len: u64, tell: &mut impl FnMut(&mut dyn Recorder, Mapped)) {
        let Some(len) = in_pages(len).filter(|len| *len > 0) else {
            return;
        };
        let (at, moment) = (Addr::new(at), self.moment);
        match self.is_system {
            true => self.recorder.unmapped(at, len, moment),
            false => tell(self.recorder, Mapped { at, len, moment }),
        }
    }

    fn unmapped(&mut self, at: u64, len: u64) {
        if let Some(len) = in_pages(len) {
            self.recorder.unmapped(Addr::new(at), len, self.begun);
        }
    }

    fn protected(&mut self, at: u64, len: u64, protection: u64) {
        const PROT_READ_WRITE_EXEC: u64 = 7;
        if let Some(len) = in_pages(len) {
            let is_usable = protection & PROT_READ_WRITE_EXEC != 0;
            self.recorder.protected(Addr::new(at), len, is_usable);
        }
    }

    /// The end of the heap segment went from `old` to `new`, to the byte.
    fn moved_break(
        &mut self,
        old: u64,
        new: u64,
        tell: &mut impl FnMut(&mut dyn Recorder, Mapped),
    ) {
        if new < old {
            let at = Addr::new(new);
            self.recorder.unmapped(at, old - new, self.begun);
        } else if new > old && !self.is_system {
            let what = Mapped {
                at: Addr::new(old),
                len: new - old,
                moment: self.moment,
            };
            tell(self.recorder, what);
        }
    }
}

/// `len` bytes as the kernel takes them: whole pages.
fn in_pages(len: u64) -> Option<u64> {
    len.checked_next_multiple_of(PAGE)
}
