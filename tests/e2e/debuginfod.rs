//! Debug files that a server on this machine has.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::child::{Finished, Watched};
use crate::fixture::Fixture;
use crate::leaktap::leaktap;
use crate::report::Report;
use crate::tools::program;

/// A stripped program, a capture of it, and a cache that is empty.
struct Stripped {
    folder: TempDir,
    longest: u32,
}

impl Stripped {
    /// Servers are waited for for so many seconds.
    fn new(longest: u32) -> Stripped {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let stripped = Stripped { folder, longest };
        let [program, debug] = ["program", "kept.debug"].map(|name| stripped.path(name));
        fs::copy(Fixture::new("elsewhere.c").program(), &program).expect("a copy");
        let keep = Path::new("--only-keep-debug");
        for (tool, words) in [
            ("objcopy", vec![keep, &program, &debug]),
            ("strip", vec![&program]),
        ] {
            let status = Command::new(tool).args(words).status();
            assert!(status.is_ok_and(|status| status.success()), "{tool}");
        }
        stripped
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `leaktap run` of the program, with a server at this address.
    fn run(&self, url: &str, is_ci: bool, more: &[&str]) -> (Finished, Report) {
        let mut command = leaktap();
        command.args(["run", "-q", "-F", "json"]).args(more);
        command.arg("--").arg(self.path("program"));
        command.env("DEBUGINFOD_URLS", format!("ftp://x {url}/"));
        command.env("DEBUGINFOD_CACHE_PATH", self.path("cache"));
        let longest = self.longest.to_string();
        command
            .env("DEBUGINFOD_MAXTIME", longest)
            .env("no_proxy", "*");
        match is_ci {
            true => command.env("CI", "true"),
            false => command.env_remove("CI"),
        };
        let mut process = Watched::spawn(&mut command);
        process.close_stdin();
        let finished = process.finish().succeeded();
        let report = Report::parse(&finished.stderr_text());
        let report = report.unwrap_or_else(|error| finished.fail(error));
        (finished, report)
    }
}

/// Functions of the largest site, innermost first.
fn innermost(report: &Report) -> Vec<String> {
    let frames = report.sites().first().map(|site| site.frames.clone());
    let frames = frames.unwrap_or_default().into_iter();
    frames.take(3).map(|frame| frame.function).collect()
}

/// Answers each request, and says what it was for.
fn serve(answer: impl Fn(&str, &mut TcpStream) + Send + 'static) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, asked) = channel();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut line = String::new();
            let mut reader = BufReader::new(stream.try_clone().expect("a copy"));
            let _ = reader.read_line(&mut line);
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            if sender.send(path.clone()).is_err() {
                return;
            }
            answer(&path, &mut stream);
        }
    });
    (url, asked)
}

fn send(stream: &mut TcpStream, status: &str, bytes: &[u8]) {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        bytes.len()
    );
    let _ = stream.write_all(head.as_bytes());
    let _ = stream.write_all(bytes);
}

#[test]
fn names_come_from_a_server_and_stay_in_the_cache() {
    if program("curl").is_none() {
        return;
    }
    let stripped = Stripped::new(60);
    let debug = fs::read(stripped.path("kept.debug")).expect("a debug file");
    let (url, asked) = serve(move |path, stream| match path.ends_with("/debuginfo") {
        true => send(stream, "200 OK", &debug),
        false => send(stream, "404 Not Found", b""),
    });
    // Not where programs are tested.
    let (_, report) = stripped.run(&url, true, &[]);
    assert_eq!(innermost(&report)[0], "");
    assert!(asked.try_recv().is_err());

    let expected = ["inlined", "leak_here", "main"];
    let (finished, report) = stripped.run(&url, false, &[]);
    if innermost(&report) != expected {
        finished.fail("names");
    }
    let id = report
        .at("/modules/0/build_id")
        .as_str()
        .expect("an id")
        .to_owned();
    let path = format!("/buildid/{id}/debuginfo");
    assert!(asked.try_iter().any(|asked| asked == path));
    assert!(stripped.path("cache").join(&id).join("debuginfo").exists());
    // Of the others, whose build ids are not those of what it sends, nothing is kept; and what is
    // in the cache is not asked for again.
    let (_, report) = stripped.run(&url, true, &["--debuginfod"]);
    assert_eq!(innermost(&report), expected);
    assert!(asked.try_iter().all(|asked| asked != path));
    let kept = fs::read_dir(stripped.path("cache"))
        .expect("a cache")
        .flatten();
    let kept = kept.filter(|folder| folder.path().join("debuginfo").exists());
    assert_eq!(kept.count(), 1);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    if program("curl").is_none() {
        return;
    }
    let stripped = Stripped::new(2);
    let (url, _asked) = serve(|_, stream| {
        // Until the client gives up.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let begun = Instant::now();
    let (finished, report) = stripped.run(&url, false, &[]);
    let took = begun.elapsed();
    if took > Duration::from_secs(10) || !innermost(&report)[0].is_empty() {
        finished.fail(format!("a report in a few seconds: {took:?}"));
    }
    let notes = report.notes();
    assert!(
        notes.iter().any(|note| note.contains("DEBUGINFOD_URLS")),
        "{notes:?}"
    );
}
