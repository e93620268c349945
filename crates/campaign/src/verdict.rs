//! What came of a draw, also as the exit status of its process.

/// The verdict on one draw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// What was seen.
    Failed(Vec<String>),
    /// The target died of a SIGKILL of leaktap's, as it may: counted apart.
    DiedByKill(Vec<String>),
    /// Something has stayed in the target; the report says so, and the next leaktap took it out.
    Remains,
    /// Not possible on this machine.
    Skipped(String),
}

/// As a process's exit status.
pub(crate) const FINE: u8 = 0;
pub(crate) const FAILED: u8 = 1;
pub(crate) const DIED_BY_KILL: u8 = 3;
pub(crate) const SKIPPED: u8 = 4;
pub(crate) const REMAINS: u8 = 5;
pub(crate) const ALL: [u8; 5] = [FINE, FAILED, DIED_BY_KILL, SKIPPED, REMAINS];

impl Verdict {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Verdict::Fine => FINE,
            Verdict::Failed(_) => FAILED,
            Verdict::DiedByKill(_) => DIED_BY_KILL,
            Verdict::Remains => REMAINS,
            Verdict::Skipped(_) => SKIPPED,
        }
    }

    /// Lines for people.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Verdict::Fine => vec!["fine".to_owned()],
            Verdict::Failed(seen) => headed("FAILED", seen),
            Verdict::DiedByKill(seen) => headed("died by SIGKILL of leaktap", seen),
            Verdict::Remains => vec!["something stayed, as the report says".to_owned()],
            Verdict::Skipped(why) => vec![format!("skipped: {why}")],
        }
    }
}

fn headed(head: &str, seen: &[String]) -> Vec<String> {
    let mut lines = vec![head.to_owned()];
    lines.extend(seen.iter().map(|line| format!("  {line}")));
    lines
}
