//! `bench breakpoint`: a malloc/free pair under breakpoints, in bare ptrace stops.

use std::error::Error;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use leaktap_tracee::{Command as Launch, Event, Options, Tracer};

use crate::program::{Program, compile, pin};
use crate::under::leaktap;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;
const STOPS: u32 = 20_000;

/// Where tracer and tracee run.
const PLACES: [(&str, &[usize], &[usize]); 3] = [
    ("wherever the kernel likes", &[0, 1], &[0, 1]),
    ("both on one core", &[0], &[0]),
    ("on two cores", &[0], &[1]),
];

/// Prints, for each placement, the medians of interleaved rounds.
pub(crate) fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let (stops, churn) = (
        compile("stops", folder.path())?,
        compile("churn", folder.path())?,
    );
    println!("a malloc/free pair at 16 frames (3 stops) under --engine breakpoint;");
    println!("medians of {ROUNDS} interleaved rounds; microseconds\n");
    println!(
        "{:<28}{:>10}{:>10}{:>10}{:>12}",
        "tracer and tracee", "bare stop", "native", "pair", "pair/stop"
    );
    for (name, tracer, tracee) in PLACES {
        let mut rounds = [Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            let (native, traced) = pair(&churn, tracer, tracee)?;
            for (list, value) in
                rounds
                    .iter_mut()
                    .zip([bare(&stops, tracer, tracee)?, native, traced])
            {
                list.push(value);
            }
        }
        let [stop, native, traced] = rounds.map(crate::median);
        let ratio = (traced - native) / stop;
        println!("{name:<28}{stop:>10.2}{native:>10.3}{traced:>10.2}{ratio:>12.2}");
    }
    Ok(())
}

/// An int3, wait, GETREGS, SETREGS, CONT.
pub(crate) fn bare(program: &Path, tracer_cpus: &[usize], tracee_cpus: &[usize]) -> Result<f64> {
    let (program, cpus) = (
        program.to_owned(),
        [tracer_cpus.to_vec(), tracee_cpus.to_vec()],
    );
    // In a thread of its own: ptrace belongs to a thread, and so does the affinity set here.
    let measured = std::thread::spawn(move || -> std::result::Result<f64, String> {
        pin(0, &cpus[0]).map_err(|e| e.to_string())?;
        stops(&program, &cpus[1])
    });
    Ok(measured
        .join()
        .map_err(|_| "the measuring thread panicked")??)
}

fn stops(program: &Path, tracee_cpus: &[usize]) -> std::result::Result<f64, String> {
    const DIED: &str = "the program died";
    let mut tracer = Tracer::new();
    let launched = tracer.launch(&Launch::new(program), Options::follow().kill_on_exit());
    let first = launched.map_err(|error| error.to_string())?;
    pin(first.tid().get(), tracee_cpus).map_err(|error| error.to_string())?;
    first.resume().map_err(|_| DIED)?;
    let mut start = Instant::now();
    for count in 0..=STOPS {
        let Event::Stopped(stopped) = tracer.wait(100) else {
            return Err(DIED.into());
        };
        let registers = stopped.registers().map_err(|_| DIED)?;
        stopped.set_registers(&registers).map_err(|_| DIED)?;
        if count == STOPS {
            // Its own int3, which ends it.
            stopped.detach().map_err(|_| DIED)?;
            break;
        }
        stopped.resume_without().map_err(|_| DIED)?;
        if count == 0 {
            start = Instant::now();
        }
    }
    Ok(start.elapsed().as_secs_f64() * 1e6 / f64::from(STOPS))
}

/// Native and traced, from one process.
fn pair(program: &Path, tracer_cpus: &[usize], tracee_cpus: &[usize]) -> Result<(f64, f64)> {
    let mut program = Program::start(program, &[])?;
    pin(program.pid(), tracee_cpus)?;
    let native = program.measure(1_000_000)?;
    let mut leaktap = Command::new(leaktap()?)
        .args([
            "attach",
            "--engine",
            "breakpoint",
            "-p",
            &program.pid().to_string(),
        ])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()?;
    pin(leaktap.id() as i32, tracer_cpus)?;
    let mut line = String::new();
    let stderr = leaktap.stderr.take().ok_or("no standard error")?;
    BufReader::new(stderr).read_line(&mut line)?;
    program.measure(1_000)?; // sets the breakpoints at return addresses
    let traced = program.measure(10_000)?;
    drop(program);
    leaktap.wait()?;
    Ok((native / 1e3, traced / 1e3))
}
