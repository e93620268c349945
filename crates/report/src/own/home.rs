//! What belongs to the program: its executable, and the libraries of its package or source tree.

use crate::names::last_part;
use crate::own::origin::Origin;
use crate::{Place, Report};

/// Folders for what no program has to itself.
const SHARED: &[&str] = &[
    "/lib/",
    "/lib32/",
    "/lib64/",
    "/libx32/",
    "/usr/lib/",
    "/usr/lib32/",
    "/usr/lib64/",
    "/usr/libx32/",
    "/usr/libexec/",
    "/usr/local/lib/",
    "/usr/share/",
];

/// Folders of package managers.
const PACKAGES: &[&str] = &[
    "/site-packages/",
    "/dist-packages/",
    "/node_modules/",
    "/nix/store/",
    "/gnu/store/",
    "/vcpkg_installed/",
    "/.conan/",
    "/.conan2/",
    "/conda/",
];

/// Folders that source trees have within.
const WITHIN: &[&str] = &["src", "source", "app", "bin", "cmd", "main"];

/// Where what belongs to a program lies.
#[derive(Debug)]
pub(crate) struct Home {
    /// The executable.
    program: String,
    /// The folder of its sources, with a slash at its end.
    sources: Option<String>,
}

impl Home {
    /// That of a program whose sources are not known.
    pub(crate) fn of_program(program: &str) -> Home {
        let program = program.to_owned();
        let sources = None;
        Home { program, sources }
    }

    /// That of the program that `report` is about.
    pub(super) fn of(report: &Report) -> Home {
        let program = report.target.file().to_owned();
        let is_programs = |place: &Place<'_>| {
            let module = place.module.map(|module| module.path.as_str());
            module == Some(program.as_str()) && Origin::foreign(place).is_none()
        };
        let places = report.tables().all().filter(is_programs);
        let files = places.filter_map(|place| place.frame.file.as_deref());
        let sources = common_folder(files).map(tree);
        Home {
            sources: sources.filter(|tree| is_of_somebody(tree)),
            program,
        }
    }

    /// Whether a place that is no foreign code belongs to the program.
    pub(crate) fn has(&self, place: &Place<'_>) -> bool {
        let file = place.frame.file.as_deref().unwrap_or_default();
        let is_package = |path: &str| PACKAGES.iter().any(|part| path.contains(part));
        let is_source = self.sources.as_deref().is_some_and(|tree| {
            let rest = file.strip_prefix(tree);
            rest.is_some_and(|rest| !is_package(&format!("/{rest}")))
        });
        let Some(module) = place.module.map(|module| module.path.as_str()) else {
            return is_source;
        };
        match module == self.program || is_source {
            true => true,
            false if is_package(module) => false,
            false => !is_shared(module) || self.is_named_in(module),
        }
    }

    /// Whether a module in a shared folder is the program's: in the program's own folder there, or
    /// in one of the program's name, as a library of it.
    fn is_named_in(&self, module: &str) -> bool {
        let name = last_part(&self.program);
        let own = self.program.strip_suffix(name).unwrap_or_default();
        let is_beside = is_shared(own) && !SHARED.contains(&own) && module.starts_with(own);
        let library = last_part(module).split(".so").next();
        let is_library = library.and_then(|stem| stem.strip_prefix("lib")) == Some(name);
        is_beside || is_library || module.split('/').any(|part| part == name)
    }
}

fn is_shared(path: &str) -> bool {
    SHARED.iter().any(|folder| path.starts_with(folder))
}

/// A folder that is deep enough to be of one project.
fn is_of_somebody(folder: &str) -> bool {
    folder.matches('/').count() >= 3 && !folder.starts_with("/usr/")
}

/// The source tree that a folder of sources is in.
fn tree(folder: &str) -> String {
    let bare = folder.trim_end_matches('/');
    match WITHIN.contains(&last_part(bare)) {
        true => bare.trim_end_matches(last_part(bare)).to_owned(),
        false => folder.to_owned(),
    }
}

/// The longest folder that all absolute `files` are in, with a slash at its end.
pub(crate) fn common_folder<'a>(files: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let folder = |path: &'a str| {
        path.split_at(path.rfind('/').map_or(0, |slash| slash + 1))
            .0
    };
    let absolute = files.filter(|path| path.starts_with('/')).map(folder);
    let common = absolute.reduce(|common, other| {
        let same = common.bytes().zip(other.bytes());
        let same = same.take_while(|(a, b)| a == b).count();
        let slash = common.bytes().take(same).rposition(|byte| byte == b'/');
        common.split_at(slash.map_or(0, |slash| slash + 1)).0
    });
    common.filter(|folder| folder.len() > 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_common_folder_is_the_longest() {
        for (files, expected) in [
            (vec!["/a/b/c.c", "/a/b/d/e.c"], Some("/a/b/")),
            (vec!["/a/bc/x.c", "/a/bd/x.c"], Some("/a/")),
            (vec!["/a/b/c.c"], Some("/a/b/")),
            (vec!["/a/x.c", "/b/x.c"], None),
            (vec!["x.c"], None),
            (vec!["/größe/x.c", "/größe2/x.c"], None),
        ] {
            assert_eq!(common_folder(files.iter().copied()), expected, "{files:?}");
        }
    }
}
