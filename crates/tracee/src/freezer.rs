//! The cgroup freezer: a process that it holds stops for a tracer, but does not run for one.

use std::fs;
use std::path::{Path, PathBuf};

use crate::Tid;

/// The command that lets `process` run, if its cgroup is frozen. Nothing, too, of a cgroup that
/// cannot be seen from here.
pub(crate) fn thaw(process: Tid) -> Option<String> {
    let groups = fs::read_to_string(format!("/proc/{process}/cgroup")).ok()?;
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    groups.lines().find_map(|line| thaw_group(line, &mounts))
}

/// `line` of /proc/PID/cgroup (cgroups(7)): hierarchy, controllers, path.
fn thaw_group(line: &str, mounts: &str) -> Option<String> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, path) = (fields.next()?, fields.next()?);
    if controllers.is_empty() {
        return frozen_above(&root_of(mounts, "cgroup2", None)?, path);
    }
    controllers.split(',').find(|name| *name == "freezer")?;
    let root = root_of(mounts, "cgroup", Some("freezer"))?;
    let state = below(&root, path).join("freezer.state");
    let is_frozen = fs::read_to_string(&state).ok()?.trim() != "THAWED";
    is_frozen.then(|| format!("echo THAWED > {}", state.display()))
}

/// The version 2 cgroup at `path`, or the nearest above it, that is to be frozen. The kernel calls
/// it frozen only when all in it are, which no tracee is that stands in another stop.
fn frozen_above(root: &Path, path: &str) -> Option<String> {
    let group = below(root, path);
    let above = group
        .ancestors()
        .take_while(|above| above.starts_with(root));
    let mut switches = above.map(|above| above.join("cgroup.freeze"));
    let is_on = |switch: &PathBuf| fs::read_to_string(switch).is_ok_and(|on| on.trim() == "1");
    let switch = switches.find(is_on)?;
    Some(format!("echo 0 > {}", switch.display()))
}

fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

/// Where a hierarchy is mounted with all of its groups: proc_pid_mountinfo(5).
fn root_of(mounts: &str, kind: &str, option: Option<&str>) -> Option<PathBuf> {
    let found = mounts.lines().find_map(|line| {
        let (of_mount, of_system) = line.split_once(" - ")?;
        let mut of_system = of_system.split(' ');
        let is_kind = of_system.next() == Some(kind);
        let mut options = of_system.nth(1).unwrap_or_default().split(',');
        let has_option = option.is_none_or(|option| options.any(|found| found == option));
        let mut of_mount = of_mount.split(' ').skip(3);
        let (root, at) = (of_mount.next()?, of_mount.next()?);
        (is_kind && has_option && root == "/").then_some(at)
    });
    found.map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
24 1 0:22 / /proc rw,relatime - proc proc rw
40 30 0:30 / /sys/fs/cgroup/freezer rw shared:9 - cgroup cgroup rw,freezer
41 30 0:31 /box /box/unified rw - cgroup2 cgroup2 rw
42 30 0:31 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

    #[test]
    fn hierarchies_are_found_where_they_are_mounted() {
        let found = |kind, option| root_of(MOUNTS, kind, option);
        let (one, two) = ("/sys/fs/cgroup/freezer", "/sys/fs/cgroup/unified");
        assert_eq!(found("cgroup", Some("freezer")), Some(one.into()));
        assert_eq!(found("cgroup2", None), Some(two.into()));
        assert_eq!(found("cgroup", Some("memory")), None);
        assert_eq!(thaw_group("9:name=systemd:/", MOUNTS), None);
        assert_eq!(thaw_group("", MOUNTS), None);
    }

    #[test]
    fn a_group_is_frozen_with_the_one_above_it() {
        let root = std::env::temp_dir().join(format!("leaktap-freezer-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/cgroup.freeze"), "1\n").unwrap();
        fs::write(root.join("a/b/cgroup.freeze"), "0\n").unwrap();
        let switch = root.join("a/cgroup.freeze");
        let expected = Some(format!("echo 0 > {}", switch.display()));
        let found = frozen_above(&root, "/a/b");
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(found, expected);
    }
}
