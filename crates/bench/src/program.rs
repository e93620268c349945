//! Programs to measure: compiled, started, pinned, and ended.

use std::error::Error;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A program under measurement; killed when dropped.
pub(crate) struct Program {
    child: Child,
    orders: ChildStdin,
    lines: BufReader<ChildStdout>,
}

/// A file of the folder `targets`.
pub(crate) fn target(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("targets")
        .join(file)
}

/// Compiles `targets/NAME.c` into `folder` with the flags of its first line.
pub(crate) fn compile(name: &str, folder: &Path) -> Result<PathBuf> {
    compile_with(name, &[], folder.join(name))
}

/// The same into the file `program`, with more flags.
pub(crate) fn compile_with(name: &str, more: &[&str], program: PathBuf) -> Result<PathBuf> {
    let source = target(&format!("{name}.c"));
    let text = std::fs::read_to_string(&source)?;
    let flags = text
        .lines()
        .next()
        .and_then(|line| line.strip_prefix("// cc:"));
    let flags = flags.unwrap_or_default().split_whitespace();
    let status = Command::new("gcc")
        .args(flags)
        .args(more)
        .arg(&source)
        .arg("-o")
        .arg(&program)
        .status()?;
    match status.success() {
        true => Ok(program),
        false => Err(format!("gcc could not compile {}", source.display()).into()),
    }
}

/// Makes so many shared objects of 256 functions; their paths.
pub(crate) fn modules(folder: &Path, count: usize) -> Result<Vec<String>> {
    let object = compile_with("module", &["-c"], folder.join("module.o"))?;
    let numbers = 0..count;
    numbers
        .map(|number| link(&object, &folder.join(format!("{number}.so"))))
        .collect()
}

/// A shared object of its own name, so that no two have the same build id.
fn link(object: &Path, module: &Path) -> Result<String> {
    let name = module.display().to_string();
    let soname = format!("-Wl,-soname,{name}");
    let mut gcc = Command::new("gcc");
    let status = gcc
        .args(["-shared", &soname, "-o", &name])
        .arg(object)
        .status()?;
    match status.success() {
        true => Ok(name),
        false => Err("gcc could not link a module".into()),
    }
}

impl Program {
    /// Starts `program`.
    pub(crate) fn start(program: &Path, arguments: &[&str]) -> Result<Program> {
        Program::spawn(Command::new(program).args(arguments))
    }

    /// Starts what `command` says.
    pub(crate) fn spawn(command: &mut Command) -> Result<Program> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let orders = child.stdin.take().ok_or("no standard input")?;
        let lines = BufReader::new(child.stdout.take().ok_or("no standard output")?);
        Ok(Program {
            child,
            orders,
            lines,
        })
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> i32 {
        self.child.id() as i32
    }

    /// Lets it do `work` units and returns the figure that it prints.
    pub(crate) fn measure(&mut self, work: u32) -> Result<f64> {
        let figures = self.ask(&work.to_string())?;
        Ok(figures.first().copied().unwrap_or(f64::NAN))
    }

    /// Gives it an order and returns the line of figures that it prints; other lines are another's
    /// who started it.
    pub(crate) fn ask(&mut self, order: &str) -> Result<Vec<f64>> {
        writeln!(self.orders, "{order}")?;
        loop {
            let figures: std::result::Result<Vec<_>, _> =
                self.line()?.split_whitespace().map(str::parse).collect();
            if let Ok(figures) = figures {
                return Ok(figures);
            }
        }
    }

    /// The next line that it prints.
    pub(crate) fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line)? {
            0 => Err("the program ended".into()),
            _ => Ok(line),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended by itself: nothing left to end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Lets the process, or this thread if `pid` is 0, run on `cpus` only.
pub(crate) fn pin(pid: i32, cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(pid), &set)?)
}
