use core::fmt;

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum End {
    /// At the outermost frame: its return address is undefined in the call frame information or
    /// null, or a chain of frame pointers has led to a null one (psABI x86-64, 3.4.1).
    Root = 0,
    /// There are more frames than the caller wanted.
    TooDeep = 1,
    /// A function has no call frame information, and rbp is no usable frame pointer.
    NoRule = 2,
    /// The stack could not be read.
    Unreadable = 3,
    /// A rule that this crate cannot follow: a register other than rsp and rbp, an unknown
    /// expression.
    Unsupported = 4,
    /// The caller's stack pointer would not lie above the frame, or is not a multiple of 8.
    Stuck = 5,
}

impl From<End> for u8 {
    fn from(end: End) -> u8 {
        end as u8
    }
}

impl TryFrom<u8> for End {
    type Error = UnknownEnd;

    fn try_from(value: u8) -> Result<End, UnknownEnd> {
        match value {
            0 => Ok(End::Root),
            1 => Ok(End::TooDeep),
            2 => Ok(End::NoRule),
            3 => Ok(End::Unreadable),
            4 => Ok(End::Unsupported),
            5 => Ok(End::Stuck),
            other => Err(UnknownEnd(other)),
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            End::Root => "complete",
            End::TooDeep => "deeper than the limit",
            End::NoRule => "no call frame information and no frame pointer",
            End::Unreadable => "stack not readable",
            End::Unsupported => "unsupported call frame information",
            End::Stuck => "stack pointer did not advance",
        })
    }
}

/// A number that is no [`End`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownEnd(pub u8);

impl fmt::Display for UnknownEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is no way for a stack to end", self.0)
    }
}

impl core::error::Error for UnknownEnd {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_survives_storage_as_a_byte() {
        let known: Vec<End> = (0..=u8::MAX)
            .filter_map(|byte| End::try_from(byte).ok())
            .collect();
        assert_eq!(known.len(), 6);
        assert!(
            known
                .iter()
                .all(|&end| End::try_from(u8::from(end)) == Ok(end))
        );
        assert_eq!(End::try_from(6), Err(UnknownEnd(6)));
    }
}
