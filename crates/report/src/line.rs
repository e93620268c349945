//! A stack in one line of text.

use crate::Place;
use crate::names::{last_part, up_to_main};
use crate::own::home::Home;
use crate::own::origin::{Class, Origin};

/// Most frames.
const FRAMES: usize = 3;

/// `frames` from the one to blame on, as far as a line takes them: `open (x.c:3) < main (x.c:9)`.
/// The process is one of `program`.
pub fn one_line(program: &str, frames: &[Place<'_>]) -> String {
    let frames = up_to_main(frames);
    let home = Home::of_program(program);
    let class = |place: &Place<'_>| match Origin::foreign(place) {
        Some(origin) => origin.class,
        None if home.has(place) => Class::Own,
        None => Class::Library,
    };
    let culprit = (0..).zip(frames).min_by_key(|(_, place)| class(place));
    let first = culprit.map_or(0, |(at, _): (usize, _)| at);
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
        let bare = frame("f", "", "/usr/bin/x");
        let library = frame("xmlNewNode", "", "/usr/lib/libxml2.so.2");
        for (frames, expected) in [
            (
                vec![&new, &copy, &main, &start],
                "copy (x.c:7) < main (x.c:7)",
            ),
            (vec![&strdup, &main], "main (x.c:7)"),
            (vec![&strdup], "strdup (strdup.c:7)"),
            (vec![&strdup, &library, &bare], "f (x)"),
            (vec![&strdup, &library], "xmlNewNode (libxml2.so.2)"),
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
            assert_eq!(one_line("/usr/bin/x", &places), expected);
        }
    }
}
