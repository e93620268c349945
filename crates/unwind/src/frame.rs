use core::fmt;

use leaktap_memory::Addr;

/// One frame of a stack, in the form in which stacks are stored.
///
/// The number is the return address into the frame, or, where a signal interrupted the frame, the
/// interrupted instruction's address. Two top bits, which no user address has, mark the latter, and
/// a frame that the frame pointer led to, not call frame information.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Frame(u64);

const BY_FRAME_POINTER: u64 = 1 << 63;
const INTERRUPTED: u64 = 1 << 62;
const MARKS: u64 = BY_FRAME_POINTER | INTERRUPTED;

impl Frame {
    /// The frame that a call returns to at `return_address`.
    #[inline]
    pub const fn returning_to(return_address: Addr) -> Frame {
        Frame(return_address.get() & !MARKS)
    }

    /// The frame that was about to run the instruction at `ip` when a signal came.
    #[inline]
    pub const fn interrupted_at(ip: Addr) -> Frame {
        Frame(ip.get() & !MARKS | INTERRUPTED)
    }

    /// The same frame, marked as found by the frame pointer.
    #[inline]
    pub(crate) const fn marked(self) -> Frame {
        Frame(self.0 | BY_FRAME_POINTER)
    }

    /// The frame stored as `raw`.
    #[inline]
    pub const fn from_raw(raw: u64) -> Frame {
        Frame(raw)
    }

    /// The number to store.
    #[inline]
    pub const fn raw(self) -> u64 {
        self.0
    }

    /// The return address, or the interrupted address: what backtrace(3) prints.
    #[inline]
    pub const fn address(self) -> Addr {
        Addr::new(self.0 & !MARKS)
    }

    /// The address to look up rows, symbols and lines by.
    ///
    /// A return address may lie past the end of the calling function, or on the next source line:
    /// a call that never returns can be the last instruction of its function. One byte less is
    /// always inside the call instruction. For an interrupted frame it is the instruction itself.
    #[inline]
    pub const fn lookup(self) -> Addr {
        let address = self.address();
        match self.0 & INTERRUPTED {
            0 => Addr::new(address.get().saturating_sub(1)),
            _ => address,
        }
    }

    /// True if the frame pointer led to this frame because its callee has no call frame
    /// information.
    #[inline]
    pub const fn by_frame_pointer(self) -> bool {
        self.0 & BY_FRAME_POINTER != 0
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = if self.by_frame_pointer() { "?" } else { "" };
        write!(f, "{}{mark}", self.address())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lookup_is_inside_the_call_or_at_the_interrupted_instruction() {
        let called = Frame::returning_to(Addr::new(0x1005));
        assert_eq!(called.lookup(), Addr::new(0x1004));
        let interrupted = Frame::interrupted_at(Addr::new(0x1005));
        assert_eq!(interrupted.lookup(), Addr::new(0x1005));
        assert_eq!(interrupted.address(), Addr::new(0x1005));
        assert_eq!(Frame::from_raw(0).lookup(), Addr::new(0));
    }

    #[test]
    fn the_mark_survives_storage_and_does_not_touch_the_address() {
        let frame = Frame::from_raw(Frame::returning_to(Addr::new(0x1005)).marked().raw());
        assert!(frame.by_frame_pointer());
        assert_eq!(frame.address(), Addr::new(0x1005));
        assert_eq!(frame.lookup(), Addr::new(0x1004));
    }
}
