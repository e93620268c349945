//! A stack in one line of text.

use std::sync::Arc;

use crate::Frame;
use crate::names::{last_part, up_to_main};

/// Most frames.
const FRAMES: usize = 3;

/// Where modules and headers are that are not the program's own.
const SYSTEM: &[&str] = &["/usr/include/", "/usr/lib", "/lib"];

/// `frames` from the first that is the program's own, innermost first, as far as a line takes them:
/// `open (x.c:3) < main (x.c:9)`.
pub fn one_line(frames: &[Arc<Frame>]) -> String {
    let frames = up_to_main(frames);
    let is_system = |path: &Option<String>| {
        let path = path.as_deref().unwrap_or_default();
        SYSTEM.iter().any(|start| path.starts_with(start))
    };
    let is_own = |frame: &Arc<Frame>| !is_system(&frame.module) && !is_system(&frame.file);
    let first = frames.iter().position(is_own).unwrap_or(0);
    let shown = frames.iter().skip(first).take(FRAMES);
    let shown: Vec<_> = shown.map(|frame| one(frame)).collect();
    match shown.is_empty() {
        true => "an unknown place".to_owned(),
        false => shown.join(" < "),
    }
}

fn one(frame: &Frame) -> String {
    let name = frame.function.as_deref().unwrap_or(&frame.address);
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => format!("{name} ({}:{line})", last_part(file)),
        (.., Some(module)) => format!("{name} ({})", last_part(module)),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(function: &str, file: &str, module: &str) -> Arc<Frame> {
        Arc::new(Frame {
            function: Some(function.to_owned()),
            file: Some(file.to_owned()).filter(|file| !file.is_empty()),
            line: Some(7),
            module: Some(module.to_owned()),
            ..Frame::default()
        })
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
                vec![new, copy.clone(), main.clone(), start],
                "copy (x.c:7) < main (x.c:7)",
            ),
            (vec![strdup.clone(), main], "main (x.c:7)"),
            (vec![strdup], "strdup (strdup.c:7)"),
            (
                vec![bare.clone(), copy, bare.clone(), bare],
                "f (x) < copy (x.c:7) < f (x)",
            ),
            (vec![], "an unknown place"),
        ] {
            assert_eq!(one_line(&frames), expected);
        }
    }
}
