//! What a breakpoint's coming and going is to somebody who would have to clean up.

use std::fs::File;
use std::io::Write;

use leaktap_memory::Addr;

/// A change of a process's code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A byte is about to be written over another one.
    Set {
        /// Where.
        at: Addr,
        /// What is there now.
        original: u8,
        /// What will be.
        written: u8,
    },
    /// The byte is there again, or the memory is gone.
    Lifted {
        /// Where.
        at: Addr,
    },
}

impl Change {
    /// Bytes of a change, as written to a pipe: at once, or not at all (pipe(7)).
    pub const LEN: usize = 11;

    /// As it is written.
    pub fn to_bytes(self) -> [u8; Change::LEN] {
        let (kind, at, original, written) = match self {
            Change::Set {
                at,
                original,
                written,
            } => (1, at, original, written),
            Change::Lifted { at } => (0, at, 0, 0),
        };
        let [a, b, c, d, e, f, g, h] = at.get().to_le_bytes();
        [kind, original, written, a, b, c, d, e, f, g, h]
    }

    /// As it was written.
    pub fn from_bytes(bytes: &[u8; Change::LEN]) -> Change {
        let [kind, original, written, at @ ..] = *bytes;
        let at = Addr::new(u64::from_le_bytes(at));
        match kind {
            0 => Change::Lifted { at },
            _ => Change::Set {
                at,
                original,
                written,
            },
        }
    }
}

/// Where changes are written to, if anybody reads them.
#[derive(Debug, Default)]
pub(crate) struct Journal(pub(crate) Option<File>);

impl Journal {
    pub(crate) fn note(&mut self, change: Change) {
        let written = self
            .0
            .as_mut()
            .map(|file| file.write_all(&change.to_bytes()));
        if written.is_some_and(|written| written.is_err()) {
            self.0 = None; // the reader has been killed
        }
    }
}

#[cfg(test)]
mod tests {
    use leaktap_arch::BREAKPOINT;

    use super::*;

    #[test]
    fn changes_survive_a_pipe() {
        let at = Addr::new(0x7fff_1234_5678);
        let set = Change::Set {
            at,
            original: 0x55,
            written: BREAKPOINT,
        };
        for change in [set, Change::Lifted { at }] {
            assert_eq!(Change::from_bytes(&change.to_bytes()), change);
        }
    }
}
