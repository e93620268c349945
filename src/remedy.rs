//! Why calls are counted by stops, and what would help: for the `attached` line, and for the end of
//! a trace that was too slow.

use leaktap_probe::{FunctionId, Kind, Process, Refusal};
use leaktap_tracee::Tid;

/// What is said of leaktap's own limits (getrlimit(2)): the error by its name, and what is to be
/// raised.
pub(crate) const DESCRIPTORS: &str =
    "leaktap itself has no file descriptor left (EMFILE); raise its ulimit -n";
pub(crate) const FILE_SIZE: &str =
    "leaktap's own files may not be as long (EFBIG); raise its ulimit -f";
pub(crate) const ADDRESSES: &str =
    "leaktap itself has too few addresses (ENOMEM); raise its ulimit -v";

/// Which allocation functions have an int3 although a detour was wanted, why, and what would help.
/// Nothing if none has.
pub(crate) fn breakpoints(process: &Process) -> Option<String> {
    let of_heap = process
        .probepoints()
        .iter()
        .filter(|p| p.function.is_of_heap());
    let (points, others): (Vec<_>, Vec<_>) = of_heap.partition(|p| p.kind == Kind::Breakpoint);
    let refusal = points.iter().find_map(|point| point.refusal)?;
    let tid = process.memory().process();
    let why = why(refusal, tid);
    if !others.iter().any(|point| point.kind == Kind::Detour) {
        return Some(format!("with breakpoints: {why}"));
    }
    let mut names: Vec<_> = points.iter().map(|point| name(point.function)).collect();
    names.sort_unstable();
    names.dedup();
    Some(format!("with breakpoints on {}: {why}", names.join(", ")))
}

/// How people write it, and which form of operator new is meant.
fn name(function: FunctionId) -> String {
    let is_aligned = function
        .function()
        .is_some_and(|known| known.name.contains("align_val_t"));
    let aligned = if is_aligned { "aligned " } else { "" };
    format!("{aligned}{}", function.display())
}

/// The reason, and the remedy.
fn why(refusal: Refusal, tid: Tid) -> String {
    let text = match refusal {
        Refusal::InjectionForbidden if tid.locked_kilobytes() != Some(0) => {
            "the target has locked memory, and so would lock ours; start it without mlock(2)"
        }
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
        Refusal::TracerDescriptors => DESCRIPTORS,
        Refusal::TracerFileSize => FILE_SIZE,
        Refusal::TracerAddresses => ADDRESSES,
        Refusal::NoMemoryInReach => {
            "no addresses are free near its allocator; start it without ulimit -v"
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
        Refusal::MayUnwind => {
            "it may throw, and is not known to be malloc; should stops cost too much, leaktap \
             detaches (--max-overhead)"
        }
        Refusal::TooShort | Refusal::JumpIntoRegion | Refusal::NotRelocatable => {
            "its code has no room for a jump; start the target with another allocator (LD_PRELOAD)"
        }
    };
    format!("{refusal}, {text}")
}
