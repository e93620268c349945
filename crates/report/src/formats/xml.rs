//! XML, as much of it as results of tests need.

use std::borrow::Cow;
use std::fmt::{self, Display};

use crate::names::printable;

/// Text, or the value of an attribute: no markup, and no character that XML cannot have.
pub(super) struct Escaped<'a>(Cow<'a, str>);

/// Text of the target's, as text.
pub(super) fn escaped(text: &str) -> Escaped<'_> {
    Escaped(printable(text))
}

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => write!(f, "{c}")?,
            }
        }
        Ok(())
    }
}
