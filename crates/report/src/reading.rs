//! How frames read in the text report.

use std::collections::HashSet;

use crate::names::{last_part, short, without_compiler, without_parameters};
use crate::own::home::common_folder;
use crate::own::origin::{Class, Origin};
use crate::{Frame, Place, Report};

/// How frames read: names in short form, the user's own files from their common folder on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading<'a> {
    /// The longest folder that all of the user's own files are in, with a slash at its end.
    pub(crate) folder: Option<&'a str>,
    /// Names and paths in full.
    pub(crate) in_full: bool,
    /// Whose culprits must not read alike.
    pub(crate) report: Option<&'a Report>,
}

impl<'a> Reading<'a> {
    /// That of the sites of `report`.
    pub(crate) fn of(report: &'a Report, in_full: bool) -> Reading<'a> {
        let ids = report.sites.iter().flat_map(|site| &site.frames);
        let ids: HashSet<_> = ids.collect();
        let frames = ids.into_iter().filter_map(|&id| report.tables().frame(id));
        let own = frames.filter(|frame| frame.own == Some(true));
        let files = own.filter_map(|frame| frame.file.as_deref());
        let folder = common_folder(files).filter(|_| !in_full);
        Reading {
            folder,
            in_full,
            report: Some(report),
        }
    }

    /// The name of a row: without the types of parameters, unless it would read as the culprit of
    /// another site then, which is another function.
    pub(crate) fn row(self, place: &Place<'_>) -> String {
        let name = self.name(place);
        let bare = without_parameters(&name);
        let is_bare = self.in_full || bare.len() == name.len();
        match is_bare || self.is_anothers(bare, &name, place.frame) {
            true => name,
            false => bare.to_owned(),
        }
    }

    /// Whether a culprit at the same place has this name, but for parameters, and others of those.
    fn is_anothers(self, bare: &str, name: &str, frame: &Frame) -> bool {
        let report = self.report.into_iter();
        let culprits = report.flat_map(|report| {
            let ids = report.sites.iter().filter_map(|site| site.culprit);
            ids.filter_map(|id| report.tables().place(id))
        });
        let mut there = culprits.take(MOST_COMPARED).filter(|place| {
            let other = place.frame;
            (other.line, &other.file) == (frame.line, &frame.file)
                && other.function != frame.function
        });
        there.any(|place| {
            let other = self.name(&place);
            other != name && without_parameters(&other) == bare
        })
    }

    /// The function, or the address where it has no name. Empty if the place says all.
    pub(crate) fn name(self, place: &Place<'_>) -> String {
        let frame = place.frame;
        match (&frame.function, &frame.file, frame.address) {
            (Some(function), ..) if self.in_full => function.clone(),
            (Some(function), ..) => short(public(function, place)),
            (None, None, Some(address)) if place.module.is_none() => address.to_string(),
            (None, ..) => String::new(),
        }
    }

    /// File and line, or module and offset.
    pub(crate) fn position(self, place: &Place<'_>) -> String {
        let Place { frame, module } = *place;
        match (&frame.file, frame.line, module, frame.offset) {
            (Some(path), Some(line), ..) => format!("{}:{line}", self.file(path)),
            (Some(path), None, ..) => self.file(path).to_owned(),
            (None, _, Some(module), Some(offset)) => {
                format!("{}+{offset}", last_part(&module.path))
            }
            (None, _, Some(module), None) => module.path.clone(),
            (None, _, None, _) => "(no module)".to_owned(),
        }
    }

    fn file(self, path: &str) -> &str {
        if self.in_full {
            return path;
        }
        let below = self.folder.and_then(|folder| path.strip_prefix(folder));
        below.unwrap_or_else(|| without_compiler(path))
    }
}

/// Sites, the first ones, that a name is compared with: there may be 100,000 without lines.
const MOST_COMPARED: usize = 256;

/// The name by which programs call a function of the C library: `strdup`, which is `__GI___strdup`
/// inside of that.
pub(crate) fn public<'f>(function: &'f str, place: &Place<'_>) -> &'f str {
    let is_internal = function.starts_with("__");
    match is_internal && Origin::of(place).class == Class::System {
        true => {
            let name = function.strip_prefix("__GI_").unwrap_or(function);
            let name = name.trim_start_matches('_');
            if name.is_empty() { function } else { name }
        }
        false => function,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Module;
    use crate::formats::text::tests::{add, frame, report};

    #[test]
    fn rows_have_parameters_where_they_would_read_alike() {
        let mut report = report();
        for (function, line) in [("open(int)", 1), ("open(char)", 1), ("fill(int)", 2)] {
            add(
                &mut report,
                &[frame(function, "x.c", line)],
                &[(1.0, 1, 10)],
            );
            let site = report.sites.last_mut().unwrap();
            site.culprit = site.frames.first().copied();
        }
        let reading = Reading::of(&report, false);
        let rows = report.sites.iter().map(|site| {
            let place = report.tables().place(site.frames[0]);
            reading.row(&place.unwrap())
        });
        let rows: Vec<_> = rows.collect();
        assert_eq!(rows, ["open(int)", "open(char)", "fill"]);
        let cut = format!("f(P{}…", ", P".repeat(9));
        assert_eq!(without_parameters(&cut), "f");
    }

    #[test]
    fn functions_of_the_c_library_have_their_public_names() {
        let module = |path: &str| Module {
            path: path.to_owned(),
            ..Module::default()
        };
        let (libc, own) = (module("/lib/libc.so.6"), module("/home/u/app"));
        for (function, module, expected) in [
            ("__GI___strdup", &libc, "strdup"),
            ("___dlopen", &libc, "dlopen"),
            ("_IO_file_doallocate", &libc, "_IO_file_doallocate"),
            ("__", &libc, "__"),
            ("__my_strdup", &own, "__my_strdup"),
        ] {
            let frame = frame(function, "x.c", 1);
            let place = Place {
                frame: &frame,
                module: Some(module),
            };
            assert_eq!(public(function, &place), expected);
        }
    }
}
