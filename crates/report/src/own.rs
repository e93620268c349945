//! Which frames are the user's own code, and which of them is a site's culprit.

pub(crate) mod home;
pub(crate) mod origin;
mod wrappers;

use std::collections::HashSet;

use self::home::Home;
use self::origin::{Class, Origin, is_lang_start, is_nameless_main};
pub(crate) use self::wrappers::is_like_malloc;
use crate::names::last_part;
use crate::{FrameId, Place, Report};

/// What the user says of whose code it is. Each is a path, of a source or a module or of a folder
/// that has them, or the name of a module or a crate.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// The user's own.
    pub own: Vec<String>,
    /// Not the user's own.
    pub not_own: Vec<String>,
}

impl Own {
    /// Says of each frame whether it is the user's own, and of each site who the culprit is: the
    /// first frame of the user's own, wrappers of malloc(3) left out; else the first outside of all
    /// runtimes; else the first outside of the C library. What is said already stays, unless the
    /// user says something.
    pub fn mark(&self, report: &mut Report) {
        let home = Home::of(report);
        let says_something = !self.own.is_empty() || !self.not_own.is_empty();
        let known = |place: &Place<'_>| place.frame.own.filter(|_| !says_something);
        let places = report.tables().all();
        let marks: Vec<_> = places
            .map(|place| known(&place).unwrap_or_else(|| self.is_own(&home, &place)))
            .collect();
        let mains = rust_mains(report);
        for ((frame, own), id) in report.frames.iter_mut().zip(marks).zip((0..).map(FrameId)) {
            frame.own = Some(own && !mains.contains(&id));
        }
        let classes = classes(report);
        for site in &mut report.sites {
            // The first of those that are least.
            site.culprit = site
                .frames
                .iter()
                .copied()
                .min_by_key(|&id| class(&classes, id));
        }
        wrappers::blame_callers(report, &classes);
    }

    fn is_own(&self, home: &Home, place: &Place<'_>) -> bool {
        let longest = |names: &[String]| {
            let matching = names.iter().filter(|name| names_place(name, place));
            matching.map(String::len).max()
        };
        let (own, not_own) = (longest(&self.own), longest(&self.not_own));
        match (own, not_own) {
            (None, None) => Origin::foreign(place).is_none() && home.has(place),
            _ => own > not_own,
        }
    }
}

/// Whose code each frame is, by its number.
pub(crate) fn classes(report: &Report) -> Vec<Class> {
    let places = report.tables().all();
    places.map(|place| Origin::of(&place).class).collect()
}

/// Whose code this frame is, by what [`classes`] says.
pub(crate) fn class(classes: &[Class], FrameId(id): FrameId) -> Class {
    let class = classes.get(id as usize).copied();
    class.unwrap_or(Class::System)
}

/// Whether the user means this place.
fn names_place(name: &str, place: &Place<'_>) -> bool {
    let file = place.frame.file.as_deref();
    let module = place.module.map(|module| module.path.as_str());
    if name.contains('/') {
        let paths = [file, module];
        return paths.into_iter().flatten().any(|path| is_below(path, name));
    }
    let is_module = module.is_some_and(|path| is_called(last_part(path), name));
    let origin = Origin::foreign(place);
    is_module || origin.is_some_and(|origin| origin.label == name)
}

/// Whether `path` is this file, or in this folder; one that is no absolute path, in any place.
fn is_below(path: &str, folder: &str) -> bool {
    let folder = folder.trim_end_matches('/');
    let is_end = |rest: &str| rest.is_empty() || rest.starts_with('/');
    if folder.starts_with('/') {
        return path.strip_prefix(folder).is_some_and(is_end);
    }
    let folder = format!("/{}", folder.trim_start_matches("./"));
    path.match_indices(&folder)
        .any(|(at, part)| is_end(path.split_at(at + part.len()).1))
}

/// `libx.so.1` is called so, and `libx.so`, and `libx`.
fn is_called(file: &str, name: &str) -> bool {
    let rest = file.strip_prefix(name);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The `main` that C's runtime calls, and that calls Rust's.
fn rust_mains(report: &Report) -> HashSet<FrameId> {
    let tables = report.tables();
    let mut mains = HashSet::new();
    for site in &report.sites {
        let calls = site.frames.windows(2);
        let outermost = calls.rev().find_map(|pair| match *pair {
            [callee, caller] if is_nameless_main(&tables.place(caller)?) => Some((callee, caller)),
            _ => None,
        });
        if let Some((callee, caller)) = outermost
            && tables
                .place(callee)
                .is_some_and(|place| is_lang_start(&place))
        {
            mains.insert(caller);
        }
    }
    mains
}

#[cfg(test)]
#[path = "own_tests.rs"]
mod tests;
