//! Every end-to-end test under both engines.

use std::fmt;

/// How leaktap probes: `--engine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Engine {
    Breakpoint,
    Auto,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Engine::Breakpoint => "breakpoint",
            Engine::Auto => "auto",
        })
    }
}

/// `fn name(engine) { body }` becomes the tests `name::breakpoint` and `name::auto`.
macro_rules! engines {
    ($($(#[$doc:meta])* fn $name:ident($engine:ident) $body:block)*) => {$(
        $(#[$doc])*
        mod $name {
            #[allow(unused_imports, reason = "a test may need nothing of its module")]
            use super::*;

            fn under($engine: $crate::engines::Engine) $body

            #[test]
            fn breakpoint() {
                under($crate::engines::Engine::Breakpoint);
            }

            #[test]
            fn auto() {
                under($crate::engines::Engine::Auto);
            }
        }
    )*};
}
pub(crate) use engines;
