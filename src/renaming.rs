//! Names for frames from files that the user has elsewhere.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use leaktap_image::{ElfFile, Elsewhere};
use leaktap_memory::Svma;
use leaktap_report::{Frame, Module, ModuleId, Report};
use leaktap_symbols::{Name, Resolver};

use crate::debuginfod::Servers;

/// Gives frames better names where a file in `elsewhere`, or of `servers`, has the build id of
/// their module.
pub(crate) fn rename(report: &mut Report, elsewhere: &Elsewhere, servers: Option<&mut Servers>) {
    let mut files: Vec<_> = vec![None; report.modules.len()];
    if elsewhere.has_any() {
        let file = |module: &Module| -> Option<Arc<ElfFile>> {
            let id = module.build_id.as_deref()?;
            let files = elsewhere.files(Path::new(&module.path), id);
            files.into_iter().next().map(Arc::new)
        };
        files = report.modules.iter().map(file).collect();
        if files.iter().all(Option::is_none) {
            let note = "no file in --debug-dir or --sysroot has the build id of a module";
            report.notes.push(note.to_owned());
        }
    }
    if let Some(servers) = servers {
        ask(servers, report, &mut files);
    }
    if files.iter().all(Option::is_none) {
        return;
    }
    let mut resolver = Resolver::new();
    report.rename(|ModuleId(id), at| match files.get(id as usize) {
        Some(Some(file)) => {
            let names = resolver.names(file, Svma(at));
            names.into_iter().map(named).collect()
        }
        _ => Vec::new(),
    });
}

/// Asks for the files of modules that have frames without a line, and none yet.
fn ask(servers: &mut Servers, report: &mut Report, files: &mut [Option<Arc<ElfFile>>]) {
    let bare = report.frames.iter().filter(|frame| frame.line.is_none());
    let bare: HashSet<_> = bare.filter_map(|frame| frame.module).collect();
    for (at, (file, module)) in (0..).zip(files.iter_mut().zip(&report.modules)) {
        if file.is_none()
            && bare.contains(&ModuleId(at))
            && let Some(id) = module.build_id.as_deref()
        {
            *file = servers.debug_file(id).map(Arc::new);
        }
    }
    report.notes.extend(servers.trouble.take());
}

fn named(name: Name) -> Frame {
    Frame {
        function: name.function,
        symbol: name.symbol,
        file: name.file,
        line: name.line,
        inlined: name.inlined,
        ..Frame::default()
    }
}
