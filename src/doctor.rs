//! `leaktap doctor`: can it be attached, what will be probed, what is missing.

use std::fs;
use std::io::{self, Write};

use leaktap_probe::{Kind, Modules, Probepoint, Remains};
use leaktap_trace::{Target, unseen};
use leaktap_tracee::Tid;

use crate::error::Error;

/// Prints what holds for every process, and for `pids`. False if something is in the way.
pub(crate) fn examine(pids: &[Tid], out: &mut dyn Write) -> Result<bool, Error> {
    let printed = |source| Error::System {
        what: "print",
        source,
    };
    let mut is_well = machine(out).map_err(printed)?;
    for pid in pids {
        is_well &= process(*pid, out)?;
    }
    Ok(is_well)
}

fn machine(out: &mut dyn Write) -> io::Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    writeln!(
        out,
        "kernel          {} (needs 5.3 or later)",
        release.trim()
    )?;
    let scope = fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").ok();
    let may_trace = may_trace_others();
    let verdict = match scope.as_deref().map(str::trim) {
        None | Some("0") => "processes of the same user can be attached",
        Some("1" | "2") if may_trace => "restricted, but leaktap has CAP_SYS_PTRACE",
        Some("3") => "no process can be attached until the next boot (kernel.yama.ptrace_scope=3)",
        Some(_) => "only children can be traced: run as root, or sysctl kernel.yama.ptrace_scope=0",
    };
    let scope = scope.as_deref().map_or("absent", str::trim);
    writeln!(out, "ptrace_scope    {scope}: {verdict}")?;
    let others = if may_trace {
        "yes"
    } else {
        "no: needs CAP_SYS_PTRACE (root, or setcap)"
    };
    writeln!(out, "other users     {others}")?;
    Ok(scope != "3" && (scope == "absent" || scope == "0" || may_trace))
}

/// CAP_SYS_PTRACE is bit 19 of capabilities(7).
fn may_trace_others() -> bool {
    let status = procfs::process::Process::myself().and_then(|me| me.status());
    status.is_ok_and(|status| status.capeff & (1 << 19) != 0)
}

fn process(pid: Tid, out: &mut dyn Write) -> Result<bool, Error> {
    let printed = |source| Error::System {
        what: "print",
        source,
    };
    match leaktap_trace::examine(pid) {
        Ok(mut target) => write_process(pid, &mut target, out).map_err(printed),
        Err(refused) => {
            writeln!(out, "process {pid:<8}{refused}").map_err(printed)?;
            Ok(false)
        }
    }
}

fn write_process(pid: Tid, target: &mut Target, out: &mut dyn Write) -> io::Result<bool> {
    let remains = match target.process().remains() {
        Remains::None => None,
        Remains::Known => Some("`leaktap attach` takes them out first"),
        Remains::Unknown => Some("attach once with the build of leaktap that made them"),
    };
    if let Some(remedy) = remains {
        writeln!(
            out,
            "remains         probes of a leaktap that was killed: {remedy}"
        )?;
        return Ok(false);
    }
    let points = target.foresee();
    let image = target.process().modules().image();
    writeln!(out, "process {pid:<8}can be attached")?;
    writeln!(out, "modules         {}", image.modules().len())?;
    for skipped in image.skipped() {
        writeln!(
            out,
            "  not read      {}: {}",
            skipped.path.display(),
            skipped.why
        )?;
    }
    write_points(target.process().modules(), &points, out)?;
    for (names, why) in leaktap_trace::lines(&points, pid) {
        let names = names.map_or_else(String::new, |names| format!(" ({names})"));
        writeln!(out, "no detours      {why}{names}")?;
    }
    let is_watched = |point: &Probepoint| !matches!(point.kind, Kind::None(_));
    let mut watched = points.iter().filter(|point| is_watched(point));
    let allocator = watched.any(|point| point.known.allocates());
    for family in target.process().unwatched() {
        writeln!(out, "not watched     {family}")?;
    }
    if let Some(unseen) = unseen(image) {
        writeln!(out, "not seen        {unseen}")?;
    }
    if !allocator {
        writeln!(
            out,
            "no allocator found: none of its modules has one that leaktap can see"
        )?;
    }
    Ok(allocator)
}

/// How each function is watched, and why not by a detour, allocator by allocator.
fn write_points(modules: &Modules, points: &[Probepoint], out: &mut dyn Write) -> io::Result<()> {
    let mut last = None;
    for point in points {
        let of = point.known.is_of_heap().then_some(point.family);
        if last != Some(of) {
            last = Some(of);
            let mut families = modules.families().all().iter();
            let family = families.find(|family| of.is_some() && family.id == of);
            let family = family.map(|family| family.describe(modules.image()));
            let what = family.unwrap_or_else(|| "of memory from the kernel".to_owned());
            writeln!(out, "functions       {what}")?;
        }
        let how = match point.kind {
            Kind::Breakpoint => match point.refusal {
                None => "breakpoint".to_owned(),
                Some(refusal) => format!("breakpoint ({refusal})"),
            },
            Kind::Detour => "detour".to_owned(),
            Kind::None(reason) => format!("none ({})", reason.name()),
        };
        let (name, module) = (&point.known.display, point.module.display());
        writeln!(out, "  {name:<18}{how:<14} {module} {}", point.address)?;
    }
    Ok(())
}
