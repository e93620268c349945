//! A stack in one line of text.

use crate::Place;
use crate::names::{last_part, up_to_main};

/// Most frames.
const FRAMES: usize = 3;

/// Where modules and headers are that are not the program's own.
const SYSTEM: &[&str] = &["/usr/include/", "/usr/lib", "/lib"];

/// `frames` from the first that is the program's own, innermost first, as far as a line takes them:
/// `open (x.c:3) < main (x.c:9)`.
pub fn one_line(frames: &[Place<'_>]) -> String {
    let frames = up_to_main(frames);
    let is_system = |path: Option<&str>| {
        let path = path.unwrap_or_default();
        SYSTEM.iter().any(|start| path.starts_with(start))
    };
    let is_own =
        |place: &Place<'_>| !is_system(module(place)) && !is_system(place.frame.file.as_deref());
    let first = frames.iter().position(is_own).unwrap_or(0);
    let shown: Vec<_> = frames.iter().skip(first).take(FRAMES).map(one).collect();
    match shown.is_empty() {
        true => "an unknown place".to_owned(),
        false => shown.join(" < "),
    }
}

fn module<'a>(place: &Place<'a>) -> Option<&'a str> {
    place.module.map(|module| module.path.as_str())
}

fn one(place: &Place<'_>) -> String {
    let frame = place.frame;
    let name = match (&frame.function, frame.address) {
        (Some(function), _) => function.clone(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    match (&frame.file, frame.line, module(place)) {
        (Some(file), Some(line), _) => format!("{name} ({}:{line})", last_part(file)),
        (.., Some(module)) => format!("{name} ({})", last_part(module)),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Frame, Module};

    fn frame(function: &str, file: &str, module: &str) -> (Frame, Module) {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: Some(file.to_owned()).filter(|file| !file.is_empty()),
            line: Some(7),
            ..Frame::default()
        };
        let module = Module {
            path: module.to_owned(),
            ..Module::default()
        };
        (frame, module)
    }

    #[test]
    fn the_programs_own_frames_are_shown() {
        let new = frame("std::vector", "/usr/include/c++/12/vector", "/home/x");
        let strdup = frame("strdup", "./string/strdup.c", "/usr/lib/libc.so.6");
        let copy = frame("copy", "/home/x.c", "/home/x");
        let main = frame("main", "/home/x.c", "/home/x");
        let start = frame("__libc_start_main", "", "/usr/lib/libc.so.6");
        let bare = frame("f", "", "/home/x");
        for (frames, expected) in [
            (
                vec![&new, &copy, &main, &start],
                "copy (x.c:7) < main (x.c:7)",
            ),
            (vec![&strdup, &main], "main (x.c:7)"),
            (vec![&strdup], "strdup (strdup.c:7)"),
            (
                vec![&bare, &copy, &bare, &bare],
                "f (x) < copy (x.c:7) < f (x)",
            ),
            (vec![], "an unknown place"),
        ] {
            let places = frames.iter().map(|(frame, module)| Place {
                frame,
                module: Some(module),
            });
            let places: Vec<_> = places.collect();
            assert_eq!(one_line(&places), expected);
        }
    }
}
