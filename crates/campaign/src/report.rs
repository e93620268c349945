//! What leaktap says in the end, against what must be true of any target.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::leaktap::Leaktap;

/// What is wrong with how leaktap ended. `excused`: it may say that it could not do its work;
/// `apart`: the sums of several programs, one after the other, are in one report; `sent`: what it
/// may have died of.
pub(crate) fn wrong(
    leaktap: &Leaktap,
    status: ExitStatus,
    excused: bool,
    apart: bool,
    sent: Option<Signal>,
) -> Vec<String> {
    let said = leaktap.child.err();
    let mut wrong = Vec::new();
    if said.contains("panicked") {
        wrong.push("leaktap panicked".to_owned());
    }
    let report = leaktap
        .report()
        .map(|text| serde_json::from_str::<Value>(&text));
    match (status.code(), report) {
        (Some(0), Some(Ok(report))) => wrong.extend(wrong_sums(&report, excused, apart)),
        (Some(0), Some(Err(error))) => wrong.push(format!("leaktap's report: {error}")),
        (Some(0), None) if !excused => {
            wrong.push("leaktap ended with 0 without a report".to_owned())
        }
        (Some(0), None) => {}
        (Some(125), _) if excused => wrong.extend(wrong_words(&said)),
        _ if sent.is_some() && status.signal() == sent.map(|s| s as i32) => {}
        _ => wrong.push(format!("leaktap ended: {status}")),
    }
    wrong
}

fn wrong_sums(report: &Value, excused: bool, apart: bool) -> Option<String> {
    let total = |name: &str| report["totals"][name].as_i64().unwrap_or(-1);
    let matched = total("frees") - total("unmatched_frees");
    if total("lost_events") > 0 && !excused {
        return Some(format!("calls were lost: {}", report["totals"]));
    }
    let holds = total("allocations") - matched == total("live_blocks");
    (!holds && !apart).then(|| format!("the sums do not add up: {}", report["totals"]))
}

/// An error is one line.
fn wrong_words(said: &str) -> Option<String> {
    let errors = said
        .lines()
        .filter(|line| !line.starts_with("leaktap: attached to "));
    let count = errors.count();
    (count == 0 || !said.lines().all(|line| line.starts_with("leaktap: ")))
        .then(|| format!("leaktap failed, and said: {said:?}"))
}

/// True if the report says that something had to stay in the target.
pub(crate) fn announces_remains(leaktap: &Leaktap) -> bool {
    let report = leaktap.report().unwrap_or_default() + &leaktap.child.err();
    report.contains("stays mapped")
        || report.contains("stay mapped")
        || report.contains("is left in the target")
}
