//! Where stacks end.

use crate::Place;
use crate::own::origin::{Class, Origin};

/// Whether a stack has all that its reader may want to know: behind `main` there is at most the C
/// library, which may have no call frame information.
pub fn is_whole(frames: &[Place<'_>]) -> bool {
    let is_main = |place: &Place<'_>| place.frame.function.as_deref() == Some("main");
    let main = frames.iter().rposition(is_main);
    let behind = main.and_then(|main| frames.get(main + 1..));
    let is_system =
        |place: &Place<'_>| Origin::foreign(place).is_some_and(|of| of.class == Class::System);
    behind.is_some_and(|behind| behind.iter().all(is_system))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Module, ModuleId, Tables};

    #[test]
    fn a_stack_is_whole_that_ends_in_main_or_behind_it_in_the_c_library() {
        let frame = |function: &str, module| Frame {
            function: Some(function.to_owned()).filter(|name| !name.is_empty()),
            module: Some(module),
            ..Frame::default()
        };
        let module = |path: &str| Module {
            path: path.to_owned(),
            ..Module::default()
        };
        let modules = [module("/x"), module("/usr/lib/musl/libc.so")];
        let (program, libc) = (ModuleId(0), ModuleId(1));
        for (stack, expected) in [
            (vec![frame("f", program), frame("main", program)], true),
            (vec![frame("main", program), frame("", libc)], true),
            (vec![frame("main", program), frame("", program)], false),
            (vec![frame("f", program), frame("", libc)], false),
            (vec![], false),
        ] {
            let (modules, frames) = (&modules, &stack);
            let tables = Tables { modules, frames };
            let places: Vec<_> = tables.all().collect();
            assert_eq!(is_whole(&places), expected, "{stack:?}");
        }
    }
}
