//! Freezing a process: cgroup v2, of its own group that is removed again.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use nix::unistd::Pid;

use crate::wait;

/// A process that is frozen until this is dropped.
pub(crate) struct Freezer {
    group: PathBuf,
    home: PathBuf,
    pid: Pid,
}

impl Freezer {
    /// Freezes `pid`, or says why that is not possible here.
    pub(crate) fn freeze(pid: Pid) -> Result<Freezer, String> {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let root = mounts.lines().find_map(|line| {
            let words: Vec<&str> = line.split(' ').collect();
            (words.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(words[1]))
        });
        let root = root.ok_or("no cgroup v2 is mounted")?;
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let own = own
            .lines()
            .find_map(|line| line.strip_prefix("0::/"))
            .unwrap_or_default();
        let home = root.join(own);
        let group = home.join(format!("leaktap-campaign-{pid}"));
        fs::create_dir(&group).map_err(|error| format!("{}: {error}", group.display()))?;
        let freezer = Freezer { group, home, pid };
        freezer.write("cgroup.procs", &pid.to_string())?;
        freezer.write("cgroup.freeze", "1")?;
        Ok(freezer)
    }

    fn write(&self, name: &str, text: &str) -> Result<(), String> {
        let path = self.group.join(name);
        fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        let _ = self.write("cgroup.freeze", "0"); // there is no more to do
        let _ = fs::write(self.home.join("cgroup.procs"), self.pid.to_string()); // or it has ended
        let is_empty = || {
            // Children that it has started meanwhile are here, too.
            let left = fs::read_to_string(self.group.join("cgroup.procs")).unwrap_or_default();
            for pid in left.lines() {
                let _ = fs::write(self.home.join("cgroup.procs"), pid);
            }
            fs::remove_dir(&self.group).is_ok()
        };
        wait::until(Duration::from_secs(5), is_empty);
    }
}
