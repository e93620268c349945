use std::ops::Range;

use leaktap_memory::{Addr, PAGE, ReadMemory};

/// Bytes that are read at a time: more of them take longer a byte, as they leave the cache.
const CHUNK: usize = 256 << 10;

const WORD: u64 = 8;

/// A piece of memory, which moves along: blocks that lie near each other are read at once.
pub(super) struct Window<'m, M> {
    memory: &'m M,
    at: u64,
    bytes: Vec<u8>,
}

impl<'m, M: ReadMemory> Window<'m, M> {
    pub(super) fn new(memory: &'m M) -> Window<'m, M> {
        Window {
            memory,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// Tells `word` each aligned word of `range`, which is in `piece`: no more than that is read.
    /// Returns how many bytes cannot be read: what is behind them is tried again.
    pub(super) fn words(
        &mut self,
        range: Range<u64>,
        piece: &Range<u64>,
        mut word: impl FnMut(u64),
    ) -> u64 {
        let end = range.end & !(WORD - 1);
        let mut at = range.start.checked_next_multiple_of(WORD).unwrap_or(end);
        let mut unread = 0;
        while at < end {
            match self.bytes(at, end - at, piece.end) {
                Some(bytes) => {
                    let (words, _) = bytes.as_chunks();
                    words
                        .iter()
                        .for_each(|bytes| word(u64::from_le_bytes(*bytes)));
                    at += words.len() as u64 * WORD;
                }
                None => {
                    let behind = page_end(at).min(end);
                    unread += behind - at;
                    at = behind;
                }
            }
        }
        unread
    }

    /// Bytes at `at`, a word at least and `len` at most; nothing if they cannot be read.
    fn bytes(&mut self, at: u64, len: u64, limit: u64) -> Option<&[u8]> {
        let has_it = at.checked_sub(self.at).is_some_and(|from| {
            let left = (self.bytes.len() as u64).checked_sub(from);
            left.is_some_and(|left| left >= WORD)
        });
        if !has_it && !self.move_to(at, limit) {
            return None;
        }
        let from = usize::try_from(at - self.at).ok()?;
        let bytes = self.bytes.get(from..)?;
        let len = usize::try_from(len).unwrap_or(usize::MAX).min(bytes.len());
        bytes.get(..len)
    }

    /// Reads from `at` on as much as can be read at once, to the end of a page, or to `limit`.
    fn move_to(&mut self, at: u64, limit: u64) -> bool {
        let mut len = CHUNK;
        while len as u64 >= PAGE {
            let end = page_end(at).saturating_add(len as u64 - PAGE).min(limit);
            self.at = at;
            self.bytes.resize((end - at) as usize, 0);
            if self.memory.read(Addr::new(at), &mut self.bytes).is_ok() {
                return true;
            }
            len /= 4;
        }
        self.bytes.clear();
        false
    }
}

/// The first address behind the page of `at`.
fn page_end(at: u64) -> u64 {
    (at | (PAGE - 1)).saturating_add(1)
}
