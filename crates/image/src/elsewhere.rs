//! Files of a process that ran on another machine.

use std::fs::File;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use crate::ElfFile;
use crate::files::open_regular;

/// Folders that have what a process had mapped elsewhere, or the debug files of that.
#[derive(Clone, Debug, Default)]
pub struct Elsewhere {
    /// Debug files: by build id, as in /usr/lib/debug; by the module's path; or by its name alone.
    pub debug_dir: Option<PathBuf>,
    /// The files that were mapped, at their paths, and debug files below usr/lib/debug.
    pub sysroot: Option<PathBuf>,
}

impl Elsewhere {
    /// Whether there is any such folder.
    pub fn has_any(&self) -> bool {
        self.debug_dir.is_some() || self.sysroot.is_some()
    }

    /// The files that say that they are of this build id, those with debug information first.
    /// `path` is where the process had the module.
    pub fn files(&self, path: &Path, build_id: &str) -> Vec<ElfFile> {
        let is_it = |file: &ElfFile| file.build_id_hex().as_deref() == Some(build_id);
        let mut files: Vec<_> = self.candidates(path, build_id).filter(is_it).collect();
        files.sort_by_key(|file| file.section(".debug_info").is_none());
        files
    }

    fn candidates(&self, path: &Path, build_id: &str) -> impl Iterator<Item = ElfFile> {
        let by_id = by_build_id(build_id);
        // A capture may say anything of where a module was.
        let is_name = |part: &Component<'_>| matches!(part, Component::Normal(_));
        let path: PathBuf = path.components().filter(is_name).collect();
        let name = PathBuf::from(path.file_name().unwrap_or_default());
        let debug = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(".debug");
            PathBuf::from(name)
        };
        let in_debug_dir = [by_id.clone(), Some(debug(&path)), Some(debug(&name))];
        let in_debug_dir = in_debug_dir.into_iter().flatten();
        let in_debug_dir = in_debug_dir.chain([path.clone(), name]);
        let in_sysroot = by_id.map(|by_id| Path::new("usr/lib/debug").join(by_id));
        let in_sysroot = in_sysroot.into_iter().chain([path]);
        let debug_dir = self.debug_dir.iter().cloned();
        let sysroot = self.sysroot.iter().cloned();
        let all = debug_dir.flat_map(move |folder| opened(folder, in_debug_dir.clone()));
        all.chain(sysroot.flat_map(move |folder| opened(folder, in_sysroot.clone())))
    }
}

/// Those of `paths` that `folder` has. What they refer to is looked for there, too.
fn opened(folder: PathBuf, paths: impl Iterator<Item = PathBuf>) -> impl Iterator<Item = ElfFile> {
    let root = File::open(&folder).ok().map(Arc::new);
    paths.filter_map(move |path| {
        let path = folder.join(path);
        let source = open_regular(&path, |_| true).ok()??;
        ElfFile::new(&path, source, root.clone()).ok()
    })
}

/// Below a folder of debug files; `None` where `build_id` is no build id.
fn by_build_id(build_id: &str) -> Option<PathBuf> {
    let is_hex = build_id.bytes().all(|byte| byte.is_ascii_hexdigit());
    let (folder, name) = build_id.split_at_checked(2)?;
    is_hex.then(|| {
        Path::new(".build-id")
            .join(folder)
            .join(format!("{name}.debug"))
    })
}
