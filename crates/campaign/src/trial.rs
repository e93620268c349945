//! One draw, from the start of its target to the verdict.

use std::time::Duration;

use nix::sys::prctl;
use nix::unistd::{Pid, getpid};

use crate::draw::Draw;
use crate::fault::Fault;
use crate::harm::{self, Lasting, Scene};
use crate::kit::Kit;
use crate::leaktap::{Leaktap, Start};
use crate::moment::Anchor;
use crate::snapshot::{Habits, Snapshot};
use crate::subject::Subject;
use crate::subjects::{self, Running};
use crate::verdict::Verdict;
use crate::{code, processes, report, wait};

/// How long a target that works may take until it looks again as it did.
const AT_REST: Duration = Duration::from_secs(4);
/// How long the helper of a leaktap that has ended may go on.
const HELPER: Duration = Duration::from_secs(5);
/// How long a target is stopped or frozen while leaktap wants to end.
const OUTLASTED: Duration = Duration::from_secs(3);

/// Makes a draw and prints it; the exit status.
pub(crate) fn run(draw: &Draw, kit: &Kit) -> u8 {
    println!("{draw}");
    let verdict = perform(draw, kit).unwrap_or_else(|error| Verdict::Failed(vec![error]));
    for line in verdict.lines() {
        println!("  {line}");
    }
    verdict.status()
}

fn perform(draw: &Draw, kit: &Kit) -> Result<Verdict, String> {
    // Orphans become children of this process, so that none gets lost.
    prctl::set_child_subreaper(true).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let target = subjects::start(draw.subject, kit, folder.path())?;
    let before = Snapshot::at_rest(target.pid());
    let scene = Scene {
        draw,
        kit,
        folder: folder.path(),
    };
    let mut trial = Trial {
        scene,
        target,
        before,
        wrong: Vec::new(),
        dead: Vec::new(),
        said: String::new(),
        attached: 0,
        is_done: false,
        was_killed: false,
        remains: false,
        skipped: None,
    };
    trial.rounds()?;
    Ok(trial.verdict())
}

struct Trial<'a> {
    scene: Scene<'a>,
    target: Box<dyn Running>,
    before: Snapshot,
    wrong: Vec<String>,
    /// As `wrong`, of the target's life.
    dead: Vec<String>,
    /// How the last leaktap ended.
    said: String,
    /// How many leaktaps there were.
    attached: u64,
    /// The fault has been done.
    is_done: bool,
    /// leaktap has been killed by it.
    was_killed: bool,
    /// Something stayed that leaktap has announced.
    remains: bool,
    skipped: Option<String>,
}

impl Trial<'_> {
    fn rounds(&mut self) -> Result<(), String> {
        let draw = self.scene.draw;
        for round in 0..draw.rounds {
            self.round(round == draw.faulty)?;
            if self.is_done && draw.fault.ends_target() {
                self.await_death();
                return Ok(());
            }
            if self.dead.is_empty() {
                self.check();
            }
            if !self.wrong.is_empty() || !self.dead.is_empty() || self.skipped.is_some() {
                return Ok(());
            }
        }
        self.dead.extend(self.target.finish().err());
        Ok(())
    }

    /// Attaches once, and has the fault come at its moment if this is its round.
    fn round(&mut self, is_faulty: bool) -> Result<(), String> {
        let draw = self.scene.draw;
        let (mut lasting, start) = match is_faulty {
            true => (self.at(Anchor::Before, None), harm::start_of(draw)),
            false => (None, Start::default()),
        };
        let mut leaktap = self.attach(&start)?;
        if is_faulty {
            lasting = lasting.or_else(|| self.at(Anchor::Started, Some(&mut leaktap)));
            if draw.moment.anchor == Anchor::Seized {
                leaktap.has_seized(self.target.pid());
                lasting = self.at(Anchor::Seized, Some(&mut leaktap));
            }
        }
        let limit = if lasting.is_some() {
            OUTLASTED
        } else {
            crate::leaktap::PATIENCE
        };
        let is_attached = leaktap.is_attached(limit);
        if is_attached {
            if is_faulty {
                lasting = lasting.or_else(|| self.at(Anchor::Attached, Some(&mut leaktap)));
            }
            wait::exactly(draw.stays);
        }
        leaktap.detach_if(is_attached);
        if is_faulty && is_attached {
            lasting = lasting.or_else(|| self.at(Anchor::Detaching, Some(&mut leaktap)));
        }
        self.end(leaktap, lasting, is_faulty);
        if is_faulty {
            let lasting = self.at(Anchor::After, None);
            self.wrong
                .extend(lasting.into_iter().flat_map(|lasting| lasting.end(false)));
        }
        Ok(())
    }

    fn attach(&mut self, start: &Start) -> Result<Leaktap, String> {
        self.attached += 1;
        let Scene { draw, kit, folder } = self.scene;
        Leaktap::attach(
            kit,
            folder,
            self.attached,
            draw.engine,
            self.target.pid(),
            start,
        )
    }

    /// Does the fault if its moment is counted from `anchor`.
    fn at(&mut self, anchor: Anchor, leaktap: Option<&mut Leaktap>) -> Option<Lasting> {
        let draw = self.scene.draw;
        if draw.moment.anchor != anchor {
            return None;
        }
        wait::exactly(draw.moment.delay);
        self.is_done = true;
        self.was_killed = draw.fault == Fault::LeaktapKill;
        let done = self.scene.act(&mut *self.target, leaktap);
        done.unwrap_or_else(|why| {
            self.skipped = Some(why);
            None
        })
    }

    /// Waits for the end of leaktap, and judges it.
    fn end(&mut self, mut leaktap: Leaktap, lasting: Option<Lasting>, is_faulty: bool) {
        if let Some(lasting) = lasting {
            let alone = leaktap.child.await_end(OUTLASTED).is_some();
            self.wrong.extend(lasting.end(alone));
        }
        // Only now is one that never came so far told to end.
        leaktap.detach_if(true);
        let Some(status) = leaktap.await_end() else {
            self.wrong
                .push(format!("leaktap does not end; {}", self.threads(&leaktap)));
            return;
        };
        if is_faulty && self.was_killed && !status.success() {
            return self.after_kill();
        }
        let (draw, excused) = (self.scene.draw, self.is_excused(is_faulty));
        let wrong = report::wrong(&leaktap, status, excused, self.habits().moves, draw.sent());
        self.wrong.extend(wrong);
        self.said = format!(
            "leaktap ended: {status}, and said: {}",
            leaktap.child.said()
        );
        let files = leaktap.files();
        if !files.is_empty() {
            self.wrong.push(format!("files are left: {files:?}"));
        }
        self.await_helpers();
        if report::announces_remains(&leaktap) && self.target.ended().is_none() {
            self.remains = true;
            self.attach_again();
        }
    }

    /// True if leaktap may fail.
    fn is_excused(&self, is_faulty: bool) -> bool {
        let Draw {
            subject,
            fault,
            moment,
            ..
        } = self.scene.draw;
        let early = matches!(
            moment.anchor,
            Anchor::Before | Anchor::Started | Anchor::Seized
        );
        let by_fault =
            self.is_done && (is_faulty || fault.persists()) && fault.excuses_leaktap(early);
        by_fault || *subject == Subject::Execs || self.was_killed
    }

    /// A leaktap that was killed has left what the next one takes out.
    fn after_kill(&mut self) {
        self.await_helpers();
        if let Err(how) = self.target.progresses() {
            self.dead.push(how);
            return;
        }
        self.attach_again();
    }

    /// Attaches once more, as one does to clean up.
    fn attach_again(&mut self) {
        let start = Start {
            duration: Some(Duration::from_millis(5)),
            ..Start::default()
        };
        let mut leaktap = match self.attach(&start) {
            Ok(leaktap) => leaktap,
            Err(error) => return self.wrong.push(error),
        };
        match leaktap.await_end() {
            Some(status) if status.success() => {}
            status => {
                let said = leaktap.child.said();
                self.wrong
                    .push(format!("the next leaktap: {status:?}: {said}"));
            }
        }
        self.await_helpers();
    }

    fn await_helpers(&mut self) {
        let mut left = Vec::new();
        wait::until(HELPER, || {
            left = processes::descendants(getpid());
            left.retain(|pid| processes::runs(*pid, &self.scene.kit.leaktap));
            left.is_empty()
        });
        if !left.is_empty() {
            self.wrong
                .push(format!("processes of leaktap are left: {left:?}"));
        }
    }

    /// The target, as it is now that nobody is attached.
    fn check(&mut self) {
        let (pid, habits) = (self.target.pid(), self.habits());
        let mut changes = Vec::new();
        wait::until(AT_REST, || {
            changes = self.before.changes(pid, habits);
            if changes.is_empty() {
                changes = code::changed(pid);
            }
            changes.is_empty() || self.target.ended().is_some()
        });
        match self.target.progresses() {
            Ok(()) => self.wrong.extend(changes),
            Err(how) => self.dead.push(how),
        }
    }

    fn habits(&self) -> Habits {
        let Draw { subject, fault, .. } = self.scene.draw;
        Habits {
            jit: subject.has_jit(),
            moves: *subject == Subject::Execs || *fault == Fault::Exec,
            serves: subject.is_server(),
            loads: matches!(subject, Subject::Dlopens | Subject::Jvm),
            limited: fault.persists(),
        }
    }

    /// A target that was to die must have done so.
    fn await_death(&mut self) {
        let ended = wait::until(subjects::PATIENCE, || self.target.ended().is_some());
        if !ended {
            self.wrong.push("the target should have died".to_owned());
        }
    }

    /// Where leaktap and the target hang.
    fn threads(&self, leaktap: &Leaktap) -> String {
        let shown = |pid: Pid| {
            let threads = processes::threads(pid);
            let states = threads.iter().map(|thread| processes::described(*thread));
            states.collect::<Vec<_>>().join(", ")
        };
        let (own, target) = (shown(leaktap.child.pid()), shown(self.target.pid()));
        format!(
            "leaktap {own}; target {target}; it said: {}",
            leaktap.child.said()
        )
    }

    fn verdict(mut self) -> Verdict {
        if let Some(why) = self.skipped {
            return Verdict::Skipped(why);
        }
        let may_die = self.scene.draw.may_die_by_kill();
        if self.was_killed && may_die && !self.dead.is_empty() {
            return Verdict::DiedByKill(self.dead);
        }
        self.wrong.extend(self.dead);
        match self.wrong.is_empty() {
            false => {
                self.wrong.push(self.said);
                Verdict::Failed(self.wrong)
            }
            true if self.remains => Verdict::Remains,
            true => Verdict::Fine,
        }
    }
}
