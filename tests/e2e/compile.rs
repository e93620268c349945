//! Fixtures from source: compiled once for each content and set of flags, safe where tests run in
//! parallel.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash, Hasher};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The first line of a source: `// cc: FLAGS`, `// c++: FLAGS` or `// rustc: FLAGS`. The next ones
/// may be `// lib: SOURCE` (built beside the program as `libNAME.so`) and `// then: COMMAND` (run
/// with the program's path at its end).
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) language: String,
    pub(crate) flags: Vec<String>,
    pub(crate) libraries: Vec<String>,
    pub(crate) then: Option<String>,
}

/// What a test asks for beyond the source's own header.
#[derive(Clone, Debug, Default, Hash)]
pub(crate) struct Build {
    /// Instead of the language's usual compiler.
    pub(crate) compiler: Option<String>,
    /// After the header's flags.
    pub(crate) flags: Vec<String>,
}

/// Where the sources are.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures")
}

/// Reads the header of a fixture's source.
pub(crate) fn header(text: &str) -> Header {
    let mut header = Header::default();
    for line in text.lines().map_while(|line| line.strip_prefix("// ")) {
        match line.split_once(": ") {
            Some((language @ ("cc" | "c++" | "rustc"), flags)) => {
                header.language = language.to_owned();
                header.flags = flags.split_whitespace().map(str::to_owned).collect();
            }
            Some(("lib", source)) => header.libraries.push(source.to_owned()),
            Some(("then", command)) => header.then = Some(command.to_owned()),
            _ => {}
        }
    }
    header
}

/// The program built from `name`, a file in `fixtures/`; or an account of why it could not be
/// built.
pub(crate) fn compile(name: &str, build: &Build) -> Result<PathBuf, String> {
    let text =
        fs::read_to_string(sources().join(name)).map_err(|error| format!("{name}: {error}"))?;
    let header = header(&text);
    let directory = cache().join(format!("{:016x}", content_hash(name, &header, build)));
    let stem = name.split('.').next().unwrap_or(name);
    for library in &header.libraries {
        let stem = library.split('.').next().unwrap_or(library);
        produce(
            library,
            &Build::default(),
            &directory.join(format!("lib{stem}.so")),
        )?;
    }
    let program = directory.join(stem);
    produce(name, build, &program)?;
    Ok(program)
}

/// Builds in a folder of its own (compilers leave their intermediate files there, too), and then
/// links it to the final name: whichever test is first, its file stays.
fn produce(name: &str, build: &Build, output: &Path) -> Result<(), String> {
    if output.exists() {
        return Ok(());
    }
    let directory = output.parent().unwrap_or(output);
    fs::create_dir_all(directory).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir_in(directory).map_err(|error| error.to_string())?;
    let temporary = folder.path().join("program");
    let source = sources().join(name);
    let header = header(&fs::read_to_string(&source).map_err(|error| format!("{name}: {error}"))?);
    let usual = match header.language.as_str() {
        "c++" => "g++",
        "rustc" => "rustc",
        _ => "gcc",
    };
    let compiler = build.compiler.as_deref().unwrap_or(usual);
    let mut command = Command::new(compiler);
    command
        .args(&header.flags)
        .args(&build.flags)
        .arg(&source)
        .arg("-o")
        .arg(&temporary);
    run(&mut command)?;
    if let Some(then) = &header.then {
        let mut words = then.split_whitespace();
        run(Command::new(words.next().unwrap_or("true"))
            .args(words)
            .arg(&temporary))?;
    }
    match fs::hard_link(&temporary, output) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(format!("{}: {error}", output.display()))
        }
        _ => Ok(()),
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command
        .output()
        .map_err(|error| format!("{command:?}: {error}"))?;
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{command:?}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

fn cache() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("fixtures")
}

fn content_hash(name: &str, header: &Header, build: &Build) -> u64 {
    let mut hasher = DefaultHasher::new();
    build.hash(&mut hasher);
    let shared = ["fixture.h", "fixture.rs", "planted/pace.h"];
    for file in shared
        .into_iter()
        .chain([name])
        .chain(header.libraries.iter().map(String::as_str))
    {
        fs::read(sources().join(file))
            .unwrap_or_default()
            .hash(&mut hasher);
    }
    sources().hash(&mut hasher); // the debug information holds it
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_names_language_flags_libraries_and_afterwork() {
        let header = header(
            "// cc: -O2 -g\n// lib: plugin.c\n// then: strip -x\n// What it is.\n\n\
             int main;\n// cc: -no\n",
        );
        assert_eq!(header.language, "cc");
        assert_eq!(header.flags, ["-O2", "-g"]);
        assert_eq!(header.libraries, ["plugin.c"]);
        assert_eq!(header.then.as_deref(), Some("strip -x"));
    }

    #[test]
    fn every_fixture_is_short_and_says_how_it_is_compiled() {
        let entries = |folder: PathBuf| fs::read_dir(folder).expect("fixtures/");
        let folders = ["campaign", "planted"].map(|folder| entries(sources().join(folder)));
        for entry in entries(sources()).chain(folders.into_iter().flatten()) {
            let path = entry.expect("an entry").path();
            if !path
                .extension()
                .is_some_and(|e| e == "c" || e == "cpp" || e == "rs")
            {
                continue; // a folder, a header, or another language
            }
            let text = fs::read_to_string(&path).expect("text");
            assert!(
                text.lines().count() <= 60,
                "{} is longer than 60 lines",
                path.display()
            );
            let shared = path.file_stem().is_some_and(|stem| stem == "fixture");
            assert!(
                shared || !header(&text).language.is_empty(),
                "{} does not say how",
                path.display()
            );
        }
    }

    #[test]
    fn no_line_of_rust_is_longer_than_100_columns() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut folders = vec![root.join("build.rs")];
        folders
            .extend(["crates", "demo", "fixtures", "fuzz", "src", "tests"].map(|f| root.join(f)));
        let mut long = Vec::new();
        while let Some(path) = folders.pop() {
            if path.is_dir() && !path.ends_with("target") {
                let entries = fs::read_dir(&path).expect("a folder");
                folders.extend(entries.map(|entry| entry.expect("an entry").path()));
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("text");
                let lines = (1..).zip(text.lines());
                let lines = lines.filter(|(_, line)| line.chars().count() > 100);
                long.extend(lines.map(|(number, _)| format!("{}:{number}", path.display())));
            }
        }
        assert_eq!(long, Vec::<String>::new());
    }

    #[test]
    fn a_build_that_fails_is_told_with_its_messages() {
        let build = Build {
            flags: vec!["-no-such-option".to_owned()],
            ..Build::default()
        };
        let error = compile("ends.c", &build).expect_err("fails");
        assert!(error.contains("no-such-option"), "{error}");
    }
}
