//! The suppressions that a program brings for LeakSanitizer.

use leaktap_report::Report;

use crate::target::Target;

/// The function that LeakSanitizer calls for them.
const FUNCTION: &str = "__lsan_default_suppressions";

/// Notes in `report` what the function returns, if the target has one; or that it is not known: it
/// is not called, and some do more than to return a text.
pub(super) fn note(target: &Target, report: &mut Report) {
    let modules = target.process().modules().all();
    let mut found = modules.filter_map(|module| {
        let functions = module.file().functions(FUNCTION);
        Some((module, functions.first()?.svma))
    });
    // LeakSanitizer calls the one that the dynamic linker finds first.
    let Some((module, function)) = found.next() else {
        return;
    };
    match module.file().text_returned_by(function) {
        Some(text) => report.target_suppressions = Some(text),
        None => report.notes.push(format!(
            "what {FUNCTION} of {} returns is not known, for it is not called: pass it as a file \
             by --suppressions",
            module.path().display()
        )),
    }
}
