//! Draw after draw, each in a process of its own, until time is up.

use std::collections::BTreeMap;
use std::env;
use std::io::{Read, Seek};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid};

use crate::args::Args;
use crate::draw::Draw;
use crate::verdict;
use crate::{processes, wait};

/// How long a draw may take.
const DEADLINE: Duration = Duration::from_secs(240);

/// Runs the campaign; 1 if anything has failed.
pub(crate) fn run(args: &Args) -> Result<u8, String> {
    prctl::set_child_subreaper(true).map_err(|error| error.to_string())?;
    let campaign = Campaign {
        args,
        end: Instant::now() + Duration::from_secs_f64(args.minutes * 60.0),
        next: AtomicU64::new(args.from),
        made: AtomicU64::new(0),
        tally: Mutex::default(),
    };
    println!("campaign: seed {}, {} minutes", args.seed, args.minutes);
    thread::scope(|scope| {
        for _ in 0..args.jobs {
            scope.spawn(|| campaign.work());
        }
    });
    let tally = campaign
        .tally
        .into_inner()
        .map_err(|error| error.to_string())?;
    println!("campaign: seed {}: {}", args.seed, tally.shown());
    Ok(u8::from(tally.count(verdict::FAILED) > 0))
}

struct Campaign<'a> {
    args: &'a Args,
    end: Instant,
    next: AtomicU64,
    made: AtomicU64,
    tally: Mutex<Tally>,
}

/// How many draws of each engine there were, and of each status.
#[derive(Default)]
struct Tally {
    engines: BTreeMap<String, u64>,
    verdicts: BTreeMap<u8, u64>,
}

impl Campaign<'_> {
    fn work(&self) {
        while Instant::now() < self.end
            && self.made.fetch_add(1, Ordering::Relaxed) < self.args.draws
        {
            let draw = self.next_draw();
            let (status, said) = make(&draw, self.args);
            let Ok(mut tally) = self.tally.lock() else {
                return;
            };
            *tally.engines.entry(draw.engine.to_string()).or_default() += 1;
            *tally.verdicts.entry(status).or_default() += 1;
            if status != verdict::FINE {
                print!("{said}");
            }
        }
    }

    /// The next one that is asked for.
    fn next_draw(&self) -> Draw {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            let draw = Draw::of(self.args.seed, number);
            let shown = draw.to_string();
            if self.args.only.iter().all(|word| shown.contains(word)) {
                return draw;
            }
        }
    }
}

impl Tally {
    fn count(&self, status: u8) -> u64 {
        self.verdicts.get(&status).copied().unwrap_or(0)
    }

    fn shown(&self) -> String {
        let draws = |engine: &str| self.engines.get(engine).copied().unwrap_or(0);
        format!(
            "{} draws with auto, {} with breakpoint; {} failures, {} deaths by SIGKILL of leaktap, \
             {} announced remains, {} skipped",
            draws("auto"),
            draws("breakpoint"),
            self.count(verdict::FAILED),
            self.count(verdict::DIED_BY_KILL),
            self.count(verdict::REMAINS),
            self.count(verdict::SKIPPED)
        )
    }
}

/// Makes a draw in a process of its own; its exit status, and what it said.
fn make(draw: &Draw, args: &Args) -> (u8, String) {
    match begin(draw, args) {
        Ok(made) => made,
        Err(error) => (verdict::FAILED, format!("{draw}\n  FAILED\n  {error}\n")),
    }
}

fn begin(draw: &Draw, args: &Args) -> std::io::Result<(u8, String)> {
    let mut command = Command::new(env::current_exe()?);
    let (seed, number) = (draw.seed.to_string(), draw.number.to_string());
    command.args(["--seed", &seed, "--draw", &number]);
    if let Some(leaktap) = &args.leaktap {
        command.arg("--leaktap").arg(leaktap);
    }
    for python in &args.python {
        command.arg("--python").arg(python);
    }
    let mut out = tempfile::tempfile()?; // a pipe might fill up before it is read
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .spawn()?;
    let pid = Pid::from_raw(child.id().cast_signed());
    let is_late = !wait::until(DEADLINE, || !processes::is_alive(pid));
    if is_late {
        end(pid);
    }
    let ended = child.wait()?;
    let mut said = String::new();
    out.rewind()?;
    out.read_to_string(&mut said)?;
    let status = ended.code().and_then(|code| u8::try_from(code).ok());
    let status = status.filter(|status| verdict::ALL.contains(status));
    if status.is_none() {
        said += &format!("{draw}\n  FAILED\n  the trial ended: {ended}; late: {is_late}\n");
    }
    Ok((status.unwrap_or(verdict::FAILED), said))
}

/// Kills a trial and all that it has started: this process becomes the parent of what is left.
fn end(trial: Pid) {
    let mut all = processes::descendants(trial);
    all.push(trial);
    for pid in all {
        if pid != getpid() {
            let _ = kill(pid, Signal::SIGKILL); // it may have ended
        }
    }
}
