//! `bench programs`: what real programs pay under leaktap, heaptrack and memcheck; how long they
//! are stopped.

mod inputs;
mod speed;
mod stops;

use std::error::Error;
use std::path::Path;

use crate::under::{Under, is_installed};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const ROUNDS: usize = 5;

/// memcheck is 20 to 60 times slower, so the machine's noise matters less.
const VALGRIND_ROUNDS: usize = 1;

/// Something that is measured.
struct Workload {
    name: &'static str,
    needs: &'static [&'static str],
    /// Measures all rounds; files go into a folder.
    run: fn(&Path) -> Result<Vec<Row>>,
}

const WORKLOADS: [Workload; 6] = [
    Workload {
        name: "python3, JSON loop",
        needs: &["python3"],
        run: speed::python,
    },
    Workload {
        name: "sqlite3, 200 k rows",
        needs: &["sqlite3"],
        run: speed::sqlite,
    },
    Workload {
        name: "cc1 -O2, 1000 lines",
        needs: &["gcc"],
        run: speed::cc1,
    },
    Workload {
        name: "redis-server",
        needs: &["redis-server", "redis-benchmark"],
        run: speed::redis,
    },
    Workload {
        name: "8 threads, 100 modules",
        needs: &["gcc"],
        run: stops::modules,
    },
    Workload {
        name: "10 M live blocks",
        needs: &["gcc"],
        run: stops::blocks,
    },
];

/// A line of the table.
struct Row {
    measure: &'static str,
    goal: &'static str,
    unit: &'static str,
    /// Of each round.
    leaktap: Vec<f64>,
    heaptrack: Vec<f64>,
    valgrind: Vec<f64>,
    /// Of the program alone: milliseconds, or what it takes for a stop when there is none.
    native: Vec<f64>,
    /// Whether more is better.
    ascending: bool,
}

/// A row without figures of others.
fn row(measure: &'static str, goal: &'static str, unit: &'static str, leaktap: Vec<f64>) -> Row {
    Row {
        measure,
        goal,
        unit,
        leaktap,
        heaptrack: Vec::new(),
        valgrind: Vec::new(),
        native: Vec::new(),
        ascending: false,
    }
}

impl Row {
    fn print(self, workload: &str) {
        let unit = self.unit;
        let cell = |values: Vec<f64>, unit: &str| match values.is_empty() {
            true => "-".to_owned(),
            false => format!("{:.2} {unit}", crate::median(values)),
        };
        let best = match self.ascending {
            true => self.leaktap.iter().copied().reduce(f64::max),
            false => self.leaktap.iter().copied().reduce(f64::min),
        };
        println!(
            "{workload:<24}{:<32}{:>9}{:>12}{:>12}{:>12}{:>12}{:>13}",
            self.measure,
            self.goal,
            cell(self.leaktap, unit),
            cell(Vec::from_iter(best), unit),
            cell(self.heaptrack, unit),
            cell(self.valgrind, unit),
            cell(self.native, "ms"),
        );
    }
}

/// Prints one table.
pub(crate) fn run() -> Result<()> {
    println!(
        "medians of {ROUNDS} interleaved rounds, and leaktap's best one \
         ({VALGRIND_ROUNDS} round of memcheck, which is slow);"
    );
    println!(
        "slowdowns are to the native run of the same round; native: its time, or the \
         longest gap with nobody attached"
    );
    for tool in [Under::Heaptrack, Under::Valgrind] {
        if !tool.is_installed() {
            println!("{tool:?} is missing: not measured");
        }
    }
    println!(
        "\n{:<24}{:<32}{:>9}{:>12}{:>12}{:>12}{:>12}{:>13}",
        "workload", "measure", "goal", "leaktap", "best", "heaptrack", "memcheck", "native"
    );
    for workload in WORKLOADS {
        let missing = workload.needs.iter().find(|name| !is_installed(name));
        if let Some(missing) = missing {
            println!("{:<24}not measured: {missing} is missing", workload.name);
            continue;
        }
        let folder = tempfile::tempdir()?;
        match (workload.run)(folder.path()) {
            Ok(rows) => rows.into_iter().for_each(|row| row.print(workload.name)),
            Err(error) => println!("{:<24}not measured: {error}", workload.name),
        }
    }
    Ok(())
}
