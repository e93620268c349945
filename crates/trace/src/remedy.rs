//! Why calls are counted by stops, and what would help: for the `attached` line, and for the end of
//! a trace that was too slow.

use std::collections::HashSet;

use leaktap_api::Function;
use leaktap_probe::{Kind, Probepoint, Process, Reason, Refusal};
use leaktap_tracee::Tid;

/// What is said of leaktap's own limits (getrlimit(2)): the error by its name, and what is to be
/// raised.
pub(crate) const DESCRIPTORS: &str =
    "leaktap itself has no file descriptor left (EMFILE); raise its ulimit -n";
pub(crate) const FILE_SIZE: &str =
    "leaktap's own files may not be as long (EFBIG); raise its ulimit -f";
pub(crate) const ADDRESSES: &str =
    "leaktap itself has too few addresses (ENOMEM); raise its ulimit -v";

/// Which allocation functions have an int3, or no probe, although a detour was wanted, why, and
/// what would help. Nothing if none has.
pub(crate) fn breakpoints(process: &Process) -> Option<String> {
    let lines = lines(process.probepoints(), process.memory().process());
    let on = |(names, why): (Option<String>, String)| match names {
        Some(names) => format!(" on {names}: {why}"),
        None => format!(": {why}"),
    };
    let all: Vec<_> = lines.into_iter().map(on).collect();
    let mut points = process.probepoints().iter();
    let how = match points.any(|point| point.kind == Kind::None(Reason::WouldTrap)) {
        true => "without probes",
        false => "with breakpoints",
    };
    (!all.is_empty()).then(|| format!("{how}{}", all.join(";")))
}

/// Each reason for breakpoints in `points`, with its remedy; and the functions, unless it is the
/// one reason for all.
pub fn lines(points: &[Probepoint], tid: Tid) -> Vec<(Option<String>, String)> {
    let is_refused = |point: &&Probepoint| {
        matches!(point.kind, Kind::Breakpoint | Kind::None(Reason::WouldTrap))
    };
    let mut refusals: Vec<_> = points
        .iter()
        .filter(is_refused)
        .filter_map(|point| point.refusal)
        .collect();
    let mut seen = HashSet::new();
    refusals.retain(|refusal| seen.insert(*refusal));
    let has_detour = points.iter().any(|point| point.kind == Kind::Detour);
    let is_one = refusals.len() == 1 && !has_detour;
    let line = |refusal| {
        let names = names(points, refusal);
        ((!is_one).then_some(names), why(refusal, tid))
    };
    refusals.into_iter().map(line).collect()
}

fn names(points: &[Probepoint], refusal: Refusal) -> String {
    let refused = points.iter().filter(|point| point.refusal == Some(refusal));
    let mut names: Vec<_> = refused.map(|point| name(&point.known)).collect();
    names.sort_unstable();
    names.dedup();
    names.join(", ")
}

/// How people write it, and which form of operator new is meant.
fn name(function: &Function) -> String {
    let is_aligned = function.name.contains("align_val_t");
    let aligned = if is_aligned { "aligned " } else { "" };
    format!("{aligned}{}", function.display)
}

/// The reason, and the remedy.
fn why(refusal: Refusal, tid: Tid) -> String {
    let text = match refusal {
        Refusal::InjectionForbidden if tid.has_shadow_stack() => {
            "the target has a shadow stack; start it with GLIBC_TUNABLES=glibc.cpu.x86_shstk=off"
        }
        Refusal::InjectionForbidden if tid.is_filtered() => {
            "the target has a seccomp filter; give leaktap CAP_SYS_ADMIN and no filter of its own, \
             see docs/containers.md"
        }
        Refusal::InjectionForbidden => {
            "the target may not be given new mappings; raise its ulimit -n"
        }
        Refusal::NoMemoryInReach if tid.has_few_addresses() => {
            "the target's addresses are limited; start it without ulimit -v"
        }
        other => remedy(other),
    };
    format!("{refusal}, {text}")
}

/// What would help, where the reason alone tells.
pub(crate) fn remedy(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::InjectionForbidden => {
            "the target has a seccomp filter, a shadow stack or no file descriptor left"
        }
        Refusal::MemoryLocked => {
            "the target locks all that is mapped (mlockall(2)); raise its ulimit -l, attach again"
        }
        Refusal::TracerDescriptors => DESCRIPTORS,
        Refusal::TracerFileSize => FILE_SIZE,
        Refusal::TracerAddresses => ADDRESSES,
        Refusal::NoMemoryInReach => {
            "no addresses are free within 2 GiB of its allocator, or ulimit -v limits them"
        }
        Refusal::NoFsBase => {
            "threads cannot read their fs base: that takes Linux 5.9 on a processor with FSGSBASE"
        }
        Refusal::LinkerAtWork => "the target is loading libraries; attach again later",
        Refusal::ThreadAsleep => "a thread sleeps where nothing wakes it; attach again later",
        Refusal::MemoryShared => {
            "another process runs in its memory (CLONE_VM); attach again when that has ended"
        }
        Refusal::ThreadInRegion => "a thread stands where a jump would be; attach again",
        Refusal::BoundLater => "it came into use after the start of the trace; attach again",
        Refusal::MayUnwind => {
            "it may throw, and is not known to be malloc; should stops cost too much, leaktap \
             detaches (--max-overhead)"
        }
        Refusal::TooShort => {
            "a function of its allocator is shorter than a jump; start it with another allocator \
             (LD_PRELOAD)"
        }
        Refusal::NoPadding => {
            "a jump has no room there; should leaktap be killed, the target may die when it loads \
             a library"
        }
        Refusal::JumpIntoRegion => {
            "a branch may lead behind the first byte of a function of its allocator; start it with \
             another allocator (LD_PRELOAD)"
        }
        Refusal::NotRelocatable => {
            "a function of its allocator begins with what can run nowhere else; start it with \
             another allocator (LD_PRELOAD)"
        }
    }
}
