//! What goes wrong while leaktap is at work, and what may follow from it.

use std::fmt;

use nix::sys::signal::Signal;

use crate::moment::Anchor;
use crate::subject::Subject;

/// A fault. `Leaktap…` and `Target…` say whom it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Nothing,
    LeaktapKill,
    LeaktapTerm,
    LeaktapInt,
    LeaktapHup,
    LeaktapStop,
    LeaktapCont,
    TargetKill,
    TargetSegv,
    TargetStop,
    TargetCont,
    /// The target executes itself.
    Exec,
    /// The target starts 320 threads.
    ThreadStorm,
    /// The target installs a seccomp filter.
    Filter,
    LeaktapAddresses,
    LeaktapFiles,
    LeaktapFileSize,
    TargetAddresses,
    TargetFiles,
    TargetFileSize,
    /// strace attaches, too.
    Strace,
    SecondLeaktap,
    /// The target is frozen by its cgroup for a while.
    Freeze,
    /// All on one processor.
    Pin,
    /// leaktap runs at the lowest priority.
    Nice,
    /// The report cannot be written.
    FullDisk,
}

use Anchor::{After, Attached, Before, Detaching, Seized, Started};
use Fault::{
    Exec, Filter, Freeze, FullDisk, LeaktapAddresses, LeaktapCont, LeaktapFileSize, LeaktapFiles,
    LeaktapHup, LeaktapInt, LeaktapKill, LeaktapStop, LeaktapTerm, Nice, Nothing, Pin,
    SecondLeaktap, Strace, TargetAddresses, TargetCont, TargetFileSize, TargetFiles, TargetKill,
    TargetSegv, TargetStop, ThreadStorm,
};

impl Fault {
    pub(crate) const ALL: [Fault; 26] = [
        Nothing,
        LeaktapKill,
        LeaktapTerm,
        LeaktapInt,
        LeaktapHup,
        LeaktapStop,
        LeaktapCont,
        TargetKill,
        TargetSegv,
        TargetStop,
        TargetCont,
        Exec,
        ThreadStorm,
        Filter,
        LeaktapAddresses,
        LeaktapFiles,
        LeaktapFileSize,
        TargetAddresses,
        TargetFiles,
        TargetFileSize,
        Strace,
        SecondLeaktap,
        Freeze,
        Pin,
        Nice,
        FullDisk,
    ];

    /// True if `subject` can be made to do it.
    pub(crate) fn suits(self, subject: Subject) -> bool {
        match self {
            Exec | ThreadStorm => subject.is_storm() || subject.is_python(),
            Filter => subject.is_storm(),
            _ => true,
        }
    }

    /// When it may come.
    pub(crate) fn anchors(self) -> &'static [Anchor] {
        match self {
            Nothing | Pin | Nice | FullDisk => &[Before],
            LeaktapKill | LeaktapTerm | LeaktapInt | LeaktapHup | LeaktapStop | LeaktapCont => {
                &[Started, Seized, Attached, Detaching]
            }
            LeaktapAddresses | LeaktapFiles | LeaktapFileSize => {
                &[Before, Started, Seized, Attached]
            }
            TargetKill | TargetSegv => &[Started, Seized, Attached, Detaching],
            Exec | ThreadStorm | Filter | Freeze | Strace | SecondLeaktap | TargetStop
            | TargetCont | TargetAddresses | TargetFiles | TargetFileSize => {
                &[Before, Started, Seized, Attached, Detaching, After]
            }
        }
    }

    /// True if the target dies of it.
    pub(crate) fn ends_target(self) -> bool {
        matches!(self, TargetKill | TargetSegv)
    }

    /// True if leaktap may say that it cannot do its work. `early`: before it had said that it was
    /// attached.
    pub(crate) fn excuses_leaktap(self, early: bool) -> bool {
        match self {
            Nothing | LeaktapStop | LeaktapCont | TargetCont | Pin | Nice | ThreadStorm => false,
            LeaktapTerm | LeaktapInt | LeaktapHup | Strace | SecondLeaktap | TargetStop => early,
            _ => true,
        }
    }

    /// True if its effect goes on in the rounds that follow.
    pub(crate) fn persists(self) -> bool {
        matches!(
            self,
            Filter | TargetAddresses | TargetFiles | TargetFileSize
        )
    }

    /// The signal that has leaktap detach.
    pub(crate) fn signal(self) -> Option<Signal> {
        match self {
            LeaktapTerm => Some(Signal::SIGTERM),
            LeaktapInt => Some(Signal::SIGINT),
            LeaktapHup => Some(Signal::SIGHUP),
            _ => None,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Nothing => "nothing",
            LeaktapKill => "leaktap-kill",
            LeaktapTerm => "leaktap-term",
            LeaktapInt => "leaktap-int",
            LeaktapHup => "leaktap-hup",
            LeaktapStop => "leaktap-stop",
            LeaktapCont => "leaktap-cont",
            TargetKill => "target-kill",
            TargetSegv => "target-segv",
            TargetStop => "target-stop",
            TargetCont => "target-cont",
            Exec => "exec",
            ThreadStorm => "thread-storm",
            Filter => "filter",
            LeaktapAddresses => "leaktap-addresses",
            LeaktapFiles => "leaktap-files",
            LeaktapFileSize => "leaktap-file-size",
            TargetAddresses => "target-addresses",
            TargetFiles => "target-files",
            TargetFileSize => "target-file-size",
            Strace => "strace",
            SecondLeaktap => "second-leaktap",
            Freeze => "freeze",
            Pin => "pin",
            Nice => "nice",
            FullDisk => "full-disk",
        })
    }
}
