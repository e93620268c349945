//! What the memory of a process is limited by: its cgroup and those around it, and its own limits.

use std::fs;
use std::path::{Component, Path, PathBuf};

use leaktap_report::{Limit, Measure};
use leaktap_tracee::Tid;
use procfs::process::{LimitValue, MountInfo, Process as ProcInfo, Status};
use procfs::{ProcResult, ProcessCGroup};

/// From here on a limit is none: cgroups of version 1 have no word for that.
const UNLIMITED: u64 = 1 << 60;

/// Files of a version of cgroups.
struct Version {
    limit: &'static str,
    usage: &'static str,
    /// What of the usage the kernel gives up first, in memory.stat.
    cache: &'static str,
}

const ONE: Version = Version {
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};

const TWO: Version = Version {
    limit: "memory.max",
    usage: "memory.current",
    cache: "inactive_file ",
};

/// The limits of `process`, as far as they can be read.
pub(crate) fn limits(process: Tid) -> Vec<Limit> {
    let Ok(info) = ProcInfo::new(process.living_thread().get()) else {
        return Vec::new(); // it has ended
    };
    let own = own_limits(&info).unwrap_or_default();
    let around = of_cgroups(&info).unwrap_or_default();
    own.into_iter().chain(around).collect()
}

/// Those of setrlimit(2).
fn own_limits(info: &ProcInfo) -> ProcResult<Vec<Limit>> {
    let (limits, status) = (info.limits()?, info.status()?);
    let used = |of: fn(&Status) -> Option<u64>| of(&status).unwrap_or_default() * 1024;
    let data = (limits.max_data_size, used(|status| status.vmdata));
    let space = (limits.max_address_space, used(|status| status.vmsize));
    let all = [
        ("RLIMIT_DATA", Measure::Data, data),
        ("RLIMIT_AS", Measure::Addresses, space),
    ];
    let set = all
        .into_iter()
        .filter_map(|(name, of, (limit, used))| match limit.soft_limit {
            LimitValue::Value(bytes) => Some(Limit {
                name,
                bytes,
                used,
                of,
            }),
            LimitValue::Unlimited => None,
        });
    Ok(set.collect())
}

fn of_cgroups(info: &ProcInfo) -> ProcResult<Vec<Limit>> {
    let (groups, mounts) = (info.cgroups()?, ProcInfo::myself()?.mountinfo()?);
    let found = folders(&groups.0, &mounts.0);
    Ok(found.map_or_else(Vec::new, |(version, folders)| {
        let limits = folders.iter().filter_map(|folder| limit(folder, version));
        limits.collect()
    }))
}

/// The folders of the cgroup that limits memory, and of those that it is in. `None` if they are not
/// to be seen from here.
fn folders(
    groups: &[ProcessCGroup],
    mounts: &[MountInfo],
) -> Option<(&'static Version, Vec<PathBuf>)> {
    let has_memory = |group: &&ProcessCGroup| group.controllers.iter().any(|name| name == "memory");
    let is_unified = |group: &&ProcessCGroup| group.hierarchy == 0;
    let one = groups.iter().find(has_memory);
    let (version, group) = match one {
        Some(group) => (&ONE, group),
        None => (&TWO, groups.iter().find(is_unified)?),
    };
    let is_its = |mount: &&MountInfo| match one {
        Some(_) => mount.fs_type == "cgroup" && mount.super_options.contains_key("memory"),
        None => mount.fs_type == "cgroup2",
    };
    let mount = mounts.iter().find(is_its)?;
    let path = Path::new(&group.pathname);
    // Of one that is outside of our namespace there is no way that leads to it.
    let below = path.strip_prefix(&mount.root).ok()?;
    let is_inside = below
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    is_inside.then(|| {
        let folders = below.ancestors().map(|part| mount.mount_point.join(part));
        (version, folders.collect())
    })
}

fn limit(folder: &Path, version: &Version) -> Option<Limit> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let number = |text: String| text.trim().parse::<u64>().ok();
    let bytes = read(version.limit).and_then(number)?; // or `max`
    let usage = read(version.usage).and_then(number)?;
    let stat = read("memory.stat").unwrap_or_default();
    let cache = stat
        .lines()
        .find_map(|line| line.strip_prefix(version.cache));
    let cache = cache.and_then(|text| number(text.to_owned()));
    (bytes < UNLIMITED).then(|| Limit {
        name: version.limit,
        bytes,
        used: usage.saturating_sub(cache.unwrap_or_default()),
        of: Measure::Resident,
    })
}

#[cfg(test)]
mod tests {
    use procfs::FromBufRead;
    use procfs::ProcessCGroups;
    use procfs::process::MountInfos;

    use super::*;

    const TWO_MOUNT: &str =
        "31 23 0:28 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n";
    const ONE_MOUNTS: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        34 31 0:31 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n\
        35 31 0:32 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn found(groups: &str, mounts: &str) -> Option<(&'static str, Vec<String>)> {
        let groups = ProcessCGroups::from_buf_read(groups.as_bytes()).unwrap();
        let mounts = MountInfos::from_buf_read(mounts.as_bytes()).unwrap();
        let (version, folders) = folders(&groups.0, &mounts.0)?;
        let folders = folders.iter().map(|folder| folder.display().to_string());
        Some((version.limit, folders.collect()))
    }

    #[test]
    fn cgroups_are_found_up_to_the_mount() {
        let (max, limit) = ("memory.max", "memory.limit_in_bytes");
        for (groups, mounts, expected) in [
            (
                "0::/a/b\n",
                TWO_MOUNT,
                Some((
                    max,
                    vec!["/sys/fs/cgroup/a/b", "/sys/fs/cgroup/a", "/sys/fs/cgroup/"],
                )),
            ),
            ("0::/\n", TWO_MOUNT, Some((max, vec!["/sys/fs/cgroup/"]))),
            ("0::/../other\n", TWO_MOUNT, None),
            (
                "4:memory:/box/a\n3:cpuset:/\n0::/c\n",
                ONE_MOUNTS,
                Some((
                    limit,
                    vec!["/sys/fs/cgroup/memory/a", "/sys/fs/cgroup/memory/"],
                )),
            ),
            ("4:memory:/elsewhere\n0::/\n", ONE_MOUNTS, None),
            ("3:cpuset:/\n", TWO_MOUNT, None),
        ] {
            let found = found(groups, mounts);
            let found = found
                .as_ref()
                .map(|(name, all)| (*name, all.iter().map(String::as_str).collect::<Vec<_>>()));
            assert_eq!(found, expected, "{groups}");
        }
    }

    #[test]
    fn limits_are_read_from_a_made_up_tree() {
        let folder = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| fs::write(folder.path().join(file), text).unwrap();
        assert_eq!(limit(folder.path(), &TWO), None);
        write("memory.max", "max\n");
        write("memory.current", "5000\n");
        assert_eq!(limit(folder.path(), &TWO), None);
        write("memory.max", "8192\n");
        write("memory.stat", "anon 1\ninactive_file 1000\nactive_file 7\n");
        let expected = Limit {
            name: "memory.max",
            bytes: 8192,
            used: 4000,
            of: Measure::Resident,
        };
        assert_eq!(limit(folder.path(), &TWO), Some(expected));
        write("memory.limit_in_bytes", "9223372036854771712\n");
        write("memory.usage_in_bytes", "7\n");
        assert_eq!(limit(folder.path(), &ONE), None);
    }
}
