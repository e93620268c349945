//! Whether there is anything to be seen.

use super::Target;
use crate::error::Error;
use crate::guests;

impl Target {
    /// Why nothing could be seen of it, if that is so, and it is not known for sure that it has
    /// nothing to see: after a launch, all of it would have been seen.
    pub(crate) fn missing_sight(&self) -> Option<Error> {
        match self.process.has_none_to_find() {
            true => None,
            false => self.missing_allocator(),
        }
    }

    /// Refuses a process none of whose functions allocate.
    pub(crate) fn require_allocator(self) -> Result<Target, Error> {
        match self.missing_allocator() {
            Some(error) => Err(error),
            None => Ok(self),
        }
    }

    fn missing_allocator(&self) -> Option<Error> {
        if self.process.finds_allocator() {
            return None;
        }
        let (pid, program) = (self.tid(), self.program.called.display().to_string());
        Some(if self.exit.is_some() || self.process.is_linked() {
            let image = self.process.modules().image();
            Error::NoAllocator {
                pid,
                program,
                why: guests::unseen(image).unwrap_or(
                    "none of its modules has one that leaktap knows; a static program needs its \
                     symbol table (not stripped)",
                ),
                is_static: image.is_static(),
            }
        } else {
            Error::Unlinked { pid, program }
        })
    }
}
