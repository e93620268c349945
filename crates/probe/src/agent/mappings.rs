//! What the agent has noted of calls that map memory, in the order in which they returned.

use leaktap_agent::layout::MAPPINGS;
use leaktap_agent::mapping::Noted;
use leaktap_ledger::StackId;
use leaktap_memory::Addr;
use leaktap_unwind::Frame;

use super::Agent;

/// What there is at a position in the queue.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unread {
    /// A note, and the position behind it.
    Noted(Noted, u64),
    /// Its thread was killed before it had written the note.
    Unwritten,
}

impl Agent {
    /// How many calls have been noted.
    pub(crate) fn moment(&self) -> u64 {
        self.shared.mappings().next()
    }

    /// Where the caller returns to of the function that made a call with this stack.
    pub(crate) fn second_frame(&self, stack: StackId) -> Option<Addr> {
        let (mut frames, mut second) = (0, None);
        let found = self.shared.ledger().stack(stack, |raw| {
            frames += 1;
            if frames == 2 {
                second = Some(Frame::from_raw(raw).address());
            }
        });
        found.and(second)
    }

    /// The next note, and the position behind it; nothing if it is not written yet.
    pub(crate) fn read_mapping(&mut self) -> Option<(Noted, u64)> {
        let words = self.shared.mappings().take(self.unread)?;
        self.unread = self.unread.wrapping_add(1);
        Some((Noted::from_words(words), self.unread))
    }

    /// As [`Agent::read_mapping`], when no thread will write any more: nothing if all is read.
    pub(crate) fn read_last_mapping(&mut self) -> Option<Unread> {
        if let Some((noted, behind)) = self.read_mapping() {
            return Some(Unread::Noted(noted, behind));
        }
        // The target may say anything: it cannot have noted more than there is room for.
        let left = self.moment().wrapping_sub(self.unread);
        if left == 0 || left > MAPPINGS as u64 {
            return None;
        }
        self.unread = self.unread.wrapping_add(1);
        Some(Unread::Unwritten)
    }
}
