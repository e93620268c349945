//! Whether what a report does not list may be there all the same.

use crate::names::printable;
use crate::numbers::count;
use crate::{Mode, Report};

impl Report {
    /// Why it may have seen less than there was, if so: that nothing is listed does not mean then
    /// that nothing is left.
    pub fn doubt(&self) -> Option<String> {
        let unwatched = self.unwatched.as_deref();
        let unwatched = unwatched.map(|why| printable(why).into_owned());
        let lost = self.totals.lost_events;
        let lost = (lost > 0).then(|| format!("not counted: {}", count(lost, "call")));
        let doubts: Vec<_> = unwatched.into_iter().chain(lost).collect();
        (!doubts.is_empty()).then(|| doubts.join("; "))
    }
}

/// Why allocations of the processes of a trace were not seen, if so: of a program that was launched
/// none of whose processes could be watched, or of any one that was asked for.
pub(crate) fn unwatched(reports: &[Report]) -> Option<&str> {
    let launched = reports.first()?.mode == Mode::Run;
    let asked = reports
        .iter()
        .filter(|one| launched || one.target.parent.is_none());
    let mut asked = asked.map(|one| one.unwatched.as_deref());
    match launched {
        true => asked.reduce(Option::and).flatten(),
        false => asked.find_map(|one| one),
    }
}

/// Whether the processes of a trace may have left what was not seen.
pub fn is_in_doubt(reports: &[Report]) -> bool {
    let has_lost = |report: &Report| report.totals.lost_events > 0;
    unwatched(reports).is_some() || reports.iter().any(has_lost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::report;

    /// As `--error-exitcode` has it: a shell that cannot be watched may start tests that can.
    #[test]
    fn of_what_was_launched_one_process_is_enough() {
        let of = |mode, parent, why: Option<&str>| {
            let mut one = report();
            one.mode = mode;
            one.target.parent = parent;
            one.unwatched = why.map(str::to_owned);
            one
        };
        let (run, attach) = (Mode::Run, Mode::Attach);
        for (reports, expected) in [
            (vec![of(run, None, Some("x")), of(run, Some(1), None)], None),
            (
                vec![of(run, None, Some("x")), of(run, Some(1), Some("y"))],
                Some("y"),
            ),
            (
                vec![of(attach, None, None), of(attach, None, Some("x"))],
                Some("x"),
            ),
            (
                vec![of(attach, None, None), of(attach, Some(1), Some("x"))],
                None,
            ),
            (vec![], None),
        ] {
            assert_eq!(unwatched(&reports), expected);
            assert_eq!(is_in_doubt(&reports), expected.is_some());
        }
    }
}
