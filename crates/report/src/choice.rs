//! From all that traces have left to what is listed of it.

use crate::{Baseline, Own, Report, Selection, Site, Suppressions, difference, merged};

/// What the user wants to see.
#[derive(Clone, Debug)]
pub struct Choice<'a> {
    /// Whose code it is.
    pub own: Own,
    /// What the user knows of.
    pub suppressions: &'a Suppressions,
    /// What was there before, and is not listed.
    pub baseline: Option<&'a Baseline>,
    /// What is compared with what was there before.
    pub before: Option<&'a [Report]>,
    /// What is listed of the rest, and in which order.
    pub selection: Selection,
    /// Also what runtimes keep for good.
    pub has_runtime: bool,
    /// Sums are those of all, and not only of what may be listed.
    pub sums_all: bool,
    /// Several processes as one, too.
    pub has_sum: bool,
}

/// What is listed.
#[derive(Clone, Debug, Default)]
pub struct Listed {
    /// The processes; one for a difference.
    pub reports: Vec<Report>,
    /// All of them as one, if there are several, and that was wanted.
    pub all: Option<Report>,
}

impl Choice<'_> {
    /// What is listed of `reports`.
    pub fn listed(&self, reports: Vec<Report>) -> Listed {
        let mut reports = self.reduced(reports, self.baseline);
        let mut selection = self.selection;
        if let Some(before) = self.before {
            let before = self.of_age(self.reduced(before.to_vec(), None));
            let after = self.of_age(reports);
            reports = difference(&before, &after).into_iter().collect();
            selection.older = None;
        }
        let is_sum_wanted = self.has_sum && reports.len() > 1;
        let all = is_sum_wanted.then(|| self.sum(&reports)).flatten();
        let reports = reports.into_iter();
        Listed {
            reports: reports.map(|report| selection.apply(report)).collect(),
            all,
        }
    }

    /// Without what is suppressed, or known of.
    fn reduced(&self, mut reports: Vec<Report>, baseline: Option<&Baseline>) -> Vec<Report> {
        for report in &mut reports {
            self.own.mark(report);
        }
        if !self.sums_all {
            reports.iter_mut().for_each(Report::forget_suppressed);
        }
        let suppressed = self.suppressions.apply(&mut reports);
        let known = baseline.map(|baseline| baseline.apply(&mut reports));
        if !self.sums_all {
            forget(&mut reports, &suppressed);
            forget(&mut reports, &known.unwrap_or_default());
        }
        let reports = reports.into_iter().map(|report| match self.has_runtime {
            true => report,
            false => report.without_runtime(),
        });
        reports.collect()
    }

    /// Of `reports`, the blocks that are old enough: they have no ages then.
    fn of_age(&self, reports: Vec<Report>) -> Vec<Report> {
        let selection = Selection {
            older: self.selection.older,
            ..Selection::default()
        };
        match selection.older {
            None => reports,
            Some(_) => {
                let reports = reports.into_iter();
                reports.map(|report| selection.apply(report)).collect()
            }
        }
    }

    /// `reports` as one, of which the selection is listed.
    fn sum(&self, reports: &[Report]) -> Option<Report> {
        // A sum has no ages.
        let all = match self.selection.older {
            None => merged(reports),
            Some(_) => merged(&self.of_age(reports.to_vec())),
        };
        let selection = Selection {
            older: None,
            ..self.selection
        };
        all.map(|all| selection.apply(all))
    }
}

/// Takes the sites of each report from its sums.
fn forget(reports: &mut [Report], sites: &[Vec<Site>]) {
    for (report, sites) in reports.iter_mut().zip(sites) {
        report.forget(sites);
    }
}
