//! What the trials need: programs of this machine, and those built from `fixtures/campaign`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{self, Command};
use std::time::SystemTime;

use crate::args::Args;
use crate::subject::Subject;

/// Paths of all programs.
pub(crate) struct Kit {
    pub(crate) leaktap: PathBuf,
    pub(crate) pythons: Vec<PathBuf>,
    /// Where what has been built is.
    built: PathBuf,
}

/// Programs without which there is no campaign, and what brings them.
const NEEDED: [(&str, &str); 11] = [
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("python3", "python3"),
    ("go", "golang-go"),
    ("javac", "default-jdk-headless"),
    ("java", "default-jdk-headless"),
    ("nginx", "nginx-light"),
    ("ab", "apache2-utils"),
    ("strace", "strace"),
    ("prlimit", "util-linux"),
    ("gcc", "gcc"),
];

impl Kit {
    /// Finds or builds everything; a program that is not there is an error.
    pub(crate) fn prepare(args: &Args) -> Result<Kit, String> {
        let missing = NEEDED.iter().find(|(program, _)| !is_installed(program));
        if let Some((program, package)) = missing {
            return Err(format!(
                "{program} is missing: install {package}, or run tests/run"
            ));
        }
        let beside = env::current_exe().map_err(|error| error.to_string())?;
        let leaktap = args
            .leaktap
            .clone()
            .unwrap_or_else(|| beside.with_file_name("leaktap"));
        let leaktap = leaktap
            .canonicalize()
            .map_err(|error| format!("{}: {error}: build it first", leaktap.display()))?;
        let kit = Kit {
            leaktap,
            pythons: args
                .python
                .iter()
                .map(|path| interpreter(path))
                .collect::<Result<_, _>>()?,
            built: beside.with_file_name("campaign-programs"),
        };
        fs::create_dir_all(&kit.built).map_err(|error| error.to_string())?;
        kit.build()?;
        Ok(kit)
    }

    /// The program of one of `fixtures/campaign`.
    pub(crate) fn storm(&self, subject: Subject) -> PathBuf {
        self.built.join(subject.to_string())
    }

    /// Where `Jvm.class` is.
    pub(crate) fn classes(&self) -> &Path {
        &self.built
    }

    fn build(&self) -> Result<(), String> {
        self.compile("loaded.c", "libloaded.so")?;
        for storm in Subject::STORMS {
            let name = storm.to_string();
            let source = match storm {
                Subject::Jumps => format!("{name}.cpp"),
                _ => format!("{name}.c"),
            };
            self.compile(&source, &name)?;
        }
        self.made("golang.go", "golang", |source, output| {
            let mut command = Command::new("go");
            command.args(["build", "-o"]).arg(output).arg(source);
            command
        })?;
        self.made("Jvm.java", "Jvm.class", |source, output| {
            let mut command = Command::new("javac");
            command.arg("-d").arg(output).arg(source);
            command
        })
    }

    /// Compiles a C or C++ source with the flags on its first line.
    fn compile(&self, source: &str, name: &str) -> Result<(), String> {
        self.made(source, name, |source, output| {
            let text = fs::read_to_string(source).unwrap_or_default();
            let flags = text.lines().next().and_then(|line| line.split_once(": "));
            let is_c = source.extension().is_some_and(|extension| extension == "c");
            let mut command = Command::new(if is_c { "gcc" } else { "g++" });
            command.args(flags.map_or("", |(_, flags)| flags).split_whitespace());
            command
                .arg("-D_GNU_SOURCE")
                .arg(source)
                .arg("-o")
                .arg(output);
            command
        })
    }

    /// Makes `name` of `source`, unless it is newer than all sources. It appears whole: others may
    /// be at work on it.
    fn made(
        &self,
        source: &str,
        name: &str,
        command: impl Fn(&Path, &Path) -> Command,
    ) -> Result<(), String> {
        let source = sources().join(source);
        let (output, header) = (self.built.join(name), sources().join("campaign.h"));
        if changed(&output) > changed(&source).max(changed(&header)) {
            return Ok(());
        }
        let folder = self.built.join(format!("being-made-by-{}", process::id()));
        fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
        let is_class = name.ends_with(".class");
        let to = if is_class {
            folder.clone()
        } else {
            folder.join(name)
        };
        let mut command = command(&source, &to);
        let done = command
            .output()
            .map_err(|error| format!("{command:?}: {error}"))?;
        if !done.status.success() {
            return Err(format!(
                "{command:?}: {}",
                String::from_utf8_lossy(&done.stderr)
            ));
        }
        fs::rename(folder.join(name), &output).map_err(|error| error.to_string())?;
        fs::remove_dir_all(&folder).map_err(|error| error.to_string())
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/campaign")
}

/// The path of the Python program that `python3` checks itself with.
pub(crate) fn python_source() -> PathBuf {
    sources().join("python.py")
}

fn changed(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|data| data.modified()).ok()
}

/// True if there is such a program; servers are outside of many a PATH.
fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders
        .into_iter()
        .any(|folder| folder.join(program).is_file())
}

/// What `python` really is: often a script that looks for one.
fn interpreter(python: &Path) -> Result<PathBuf, String> {
    let mut command = Command::new(python);
    let output = command
        .args(["-c", "import sys; print(sys.executable)"])
        .output();
    let output = output.map_err(|error| format!("{}: {error}", python.display()))?;
    Ok(PathBuf::from(
        String::from_utf8_lossy(&output.stdout).trim(),
    ))
}
