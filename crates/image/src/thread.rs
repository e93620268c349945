use procfs::process::Process;

/// A thread of process `pid`, whose leader has ended: of that one /proc tells nothing of the
/// memory, which goes on. None if the leader lives, or no other thread does.
pub(crate) fn living_thread(pid: i32) -> Option<i32> {
    let process = Process::new(pid).ok()?;
    if !matches!(process.stat().ok()?.state, 'Z' | 'X') {
        return None;
    }
    let lives = |task: &procfs::process::Task| {
        let stat = task.stat();
        stat.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
    };
    let mut tasks = process.tasks().ok()?.flatten();
    tasks.find(lives).map(|task| task.tid)
}
