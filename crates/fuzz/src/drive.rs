//! Feeds a subject inputs by chance, and looks after time.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

use crate::{Random, Subject};

/// An input that takes more processor time is a finding.
const LONGEST: Duration = Duration::from_secs(1);

/// Most inputs that are kept because they got through.
const KEPT: usize = 256;

/// Most mutations of an input at once.
const MUTATIONS: usize = 4;

/// What became of many inputs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum {
    /// How many there were.
    pub executions: u64,
    /// How many got through to the parser proper.
    pub reached: u64,
    /// The most processor time that one took.
    pub slowest: Duration,
}

/// The stored inputs of the subject of that name.
///
/// # Errors
/// From reading `fuzz/corpus`.
pub fn corpus(name: &str) -> io::Result<Vec<Vec<u8>>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let entries = fs::read_dir(folder.join(name))?;
    let mut paths = entries
        .map(|entry| Ok(entry?.path()))
        .collect::<io::Result<Vec<PathBuf>>>()?;
    paths.sort();
    paths.iter().map(fs::read).collect()
}

/// Parses the stored inputs, and `executions` mutations of them.
///
/// # Errors
/// The file with an input that the subject panicked at, or took too long for; or none, if there is
/// no corpus.
pub fn drive(subject: &Subject, executions: u64, seed: u64) -> io::Result<Sum> {
    let stored = corpus(subject.name)?;
    let input = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        let (progress, watched) = channel();
        scope.spawn(|| watch(subject, &input, watched));
        let mut run = Run {
            subject,
            input: &input,
            sum: Sum::default(),
        };
        for input in &stored {
            run.parse(input)?;
        }
        let mut random = Random::new(seed);
        let mut kept = stored.clone();
        for execution in 0..executions {
            let from = match random.one_in(2) {
                true => &stored,
                false => &kept,
            };
            let mut input = from[random.below(from.len())].clone();
            for _ in 0..1 + random.below(MUTATIONS) {
                (subject.mutate)(&mut input, &mut random);
            }
            if run.parse(&input)? {
                let at = random.below(KEPT);
                match kept.get_mut(at) {
                    Some(place) => *place = input,
                    None => kept.push(input),
                }
            }
            if execution % 64 == 0 {
                let _ = progress.send(()); // the watch ends by no longer hearing of this
            }
        }
        Ok(run.sum)
    })
}

struct Run<'a> {
    subject: &'a Subject,
    /// The one that is being parsed.
    input: &'a Mutex<Vec<u8>>,
    sum: Sum,
}

impl Run<'_> {
    fn parse(&mut self, input: &[u8]) -> io::Result<bool> {
        if let Ok(mut current) = self.input.lock() {
            current.clear();
            current.extend_from_slice(input);
        }
        let begin = processor_time();
        let parse = || (self.subject.parse)(input);
        let Ok(reached) = catch_unwind(AssertUnwindSafe(parse)) else {
            return Err(finding(self.subject, input, "panics"));
        };
        let took = processor_time().saturating_sub(begin);
        if took > LONGEST {
            return Err(finding(self.subject, input, "takes too long"));
        }
        self.sum.executions += 1;
        self.sum.reached += u64::from(reached);
        self.sum.slowest = self.sum.slowest.max(took);
        Ok(reached)
    }
}

/// Of this thread: what else the machine does is no finding.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

/// Ends the process, with the input in a file, if no progress is heard of for long.
fn watch(subject: &Subject, input: &Mutex<Vec<u8>>, progress: Receiver<()>) {
    loop {
        match progress.recv_timeout(64 * LONGEST) {
            Ok(()) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                let input = input.lock().map(|input| input.clone());
                let error = finding(subject, &input.unwrap_or_default(), "hangs");
                // The one way to end a thread that does not.
                let _ = fs::write("/dev/stderr", format!("{error}\n"));
                std::process::abort();
            }
        }
    }
}

fn finding(subject: &Subject, input: &[u8], what: &str) -> io::Error {
    let path = std::env::temp_dir().join(format!("leaktap-fuzz-{}", subject.name));
    let path = match fs::write(&path, input) {
        Ok(()) => path.display().to_string(),
        Err(error) => format!("a file that cannot be written ({error})"),
    };
    io::Error::other(format!("{} {what}: the input is in {path}", subject.name))
}
