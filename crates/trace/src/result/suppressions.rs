//! The suppressions that a program brings for LeakSanitizer.

use leaktap_report::Report;

use crate::target::Target;

/// The function that LeakSanitizer calls for them.
const FUNCTION: &str = "__lsan_default_suppressions";

/// Notes in `report` what the function returns, if the target has one; or that it is not known: it
/// is not called, and some do more than to return a text.
pub(super) fn note(target: &Target, report: &mut Report) {
    for module in target.process().modules().all() {
        let file = module.file();
        let Some(function) = file.functions(FUNCTION).into_iter().next() else {
            continue;
        };
        match file.text_returned_by(function.svma) {
            Some(text) => {
                let texts = report.target_suppressions.get_or_insert_default();
                texts.push_str(&text);
                texts.push('\n');
            }
            None => report.notes.push(format!(
                "what {FUNCTION} of {} returns is not known, for it is not called: pass \
                 it as a file by --suppressions",
                module.path().display()
            )),
        }
    }
}
