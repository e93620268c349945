//! Names for frames from files that the user has elsewhere.

use std::path::Path;
use std::sync::Arc;

use leaktap_image::{ElfFile, Elsewhere};
use leaktap_memory::Svma;
use leaktap_report::{Frame, Module, ModuleId, Report};
use leaktap_symbols::{Name, Resolver};

/// Gives frames better names where a file in `elsewhere` has the build id of their module.
pub(crate) fn rename(report: &mut Report, elsewhere: &Elsewhere) {
    if !elsewhere.has_any() {
        return;
    }
    let file = |module: &Module| -> Option<Arc<ElfFile>> {
        let id = module.build_id.as_deref()?;
        let files = elsewhere.files(Path::new(&module.path), id);
        files.into_iter().next().map(Arc::new)
    };
    let files: Vec<_> = report.modules.iter().map(file).collect();
    if files.iter().all(Option::is_none) {
        let note = "no file in --debug-dir or --sysroot has the build id of a module";
        return report.notes.push(note.to_owned());
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
