//! For how long leaktap stops a program, seen from inside, and what its ledger weighs.

use std::path::Path;
use std::process::Command;

use super::{ROUNDS, Result, Row, row};
use crate::program::{self, Program, compile};
use crate::under::{self, Leaktap};

const MODULES: usize = 100;
const BLOCKS: u64 = 10_000_000;

/// The ledger is looked at so often while it grows.
const STEPS: u64 = 10;

/// What the spinning thread saw, in milliseconds: the sum of the stops, the longest, the longest
/// gap of any kind.
fn gaps(program: &mut Program) -> Result<[f64; 3]> {
    let figures = program.ask("gaps")?;
    Ok(figures.try_into().map_err(|_| "three figures expected")?)
}

/// Attaches to a process of many modules and threads.
pub(super) fn modules(folder: &Path) -> Result<Vec<Row>> {
    let watch = compile("watch", folder)?;
    let modules = program::modules(folder, MODULES)?;
    let mut arguments = vec!["8"];
    arguments.extend(modules.iter().map(String::as_str));
    let (mut sum, mut longest, mut own) = (Vec::new(), Vec::new(), Vec::new());
    let (mut floor, mut detach) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let mut program = Program::start(&watch, &arguments)?;
        program.ask("spin")?;
        let leaktap = Leaktap::attach(program.pid())?;
        let seen = gaps(&mut program)?;
        sum.push(seen[0]);
        longest.push(seen[1]);
        program.ask("spin")?;
        let report = leaktap.detach()?;
        detach.push(gaps(&mut program)?[0]);
        own.push(report["stopped"]["attach"].as_f64().unwrap_or(f64::NAN) * 1e3);
        // Reads what attach reads, and stops nothing.
        program.ask("spin")?;
        let mut doctor = Command::new(under::leaktap()?);
        let pid = program.pid().to_string();
        doctor.args(["doctor", "-p", &pid]).output()?;
        floor.push(gaps(&mut program)?[2]);
    }
    Ok(vec![
        Row {
            native: floor,
            ..row("attach: stopped in all", "<= 5 ms", "ms", sum)
        },
        row("  the longest stop", "", "ms", longest),
        row("  as leaktap reports", "", "ms", own),
        row("detach: stopped in all", "<= 1 ms", "ms", detach),
    ])
}

/// Has a program make blocks while it is traced; detaches; attaches once more.
pub(super) fn blocks(folder: &Path) -> Result<Vec<Row>> {
    let watch = compile("watch", folder)?;
    let (mut bytes, mut most, mut pause, mut floor) = (vec![], vec![], vec![], vec![]);
    let (mut attach, mut detach, mut detach_longest) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        let mut native = Program::start(&watch, &["1"])?;
        floor.push(grow(&mut native, BLOCKS)?);
        drop(native);

        let mut program = Program::start(&watch, &["1"])?;
        let leaktap = Leaktap::attach(program.pid())?;
        let empty = ledger(program.pid())?;
        let (mut longest, mut largest, mut last) = (0.0, 0.0, 0.0);
        for step in 1..=STEPS {
            longest = f64::max(longest, grow(&mut program, BLOCKS / STEPS)?);
            let blocks = (BLOCKS / STEPS * step) as f64;
            last = (ledger(program.pid())? - empty) / blocks;
            largest = f64::max(largest, last);
        }
        pause.push(longest);
        bytes.push(last);
        most.push(largest);
        program.ask("spin")?;
        leaktap.detach()?;
        let [sum, longest, _] = gaps(&mut program)?;
        detach.push(sum);
        detach_longest.push(longest);
        program.ask("spin")?;
        let leaktap = Leaktap::attach(program.pid())?;
        attach.push(gaps(&mut program)?[0]);
        leaktap.detach()?;
    }
    Ok(vec![
        row("ledger bytes a block", "<= 32 B", "B", bytes),
        row("  the most at any million", "", "B", most),
        Row {
            native: floor,
            ..row("longest pause while it grows", "<= 5 ms", "ms", pause)
        },
        row("attach: stopped in all", "<= 5 ms", "ms", attach),
        row("detach: stopped in all", "<= 1 ms", "ms", detach),
        row("  the longest stop", "", "ms", detach_longest),
    ])
}

/// Has `program` allocate; the longest call, in milliseconds.
fn grow(program: &mut Program, blocks: u64) -> Result<f64> {
    let figures = program.ask(&format!("blocks {blocks}"))?;
    Ok(*figures.first().ok_or("a figure expected")?)
}

/// Resident bytes of the memory that a process shares with leaktap, by /proc/PID/smaps.
fn ledger(pid: i32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let (mut is_shared, mut kilobytes) = (false, 0.0);
    for line in text.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("Rss:") if is_shared => {
                kilobytes += words.next().unwrap_or_default().parse::<f64>()?;
            }
            // A mapping's first line begins with its addresses.
            Some(word) if !word.ends_with(':') => is_shared = line.contains("memfd:leaktap"),
            _ => {}
        }
    }
    Ok(kilobytes * 1024.0)
}
