//! Heaps that leaktap cannot see are named: those of interpreters and of emulated programs.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::child::Finished;
use crate::compile::Build;
use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{leaktap_with, run};

/// The program, under another name.
fn copied(fixture: &Fixture, to: &Path) -> PathBuf {
    fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
    fs::copy(fixture.program(), to).expect("a copy");
    to.to_owned()
}

/// Runs `program` to its end; the report is text.
fn run_to_text(engine: Engine, program: &str) -> Finished {
    let engine = engine.to_string();
    leaktap_with(["run", "--engine", &engine, "--", program, "run"])
}

engines! {
    fn the_heap_of_a_guest_is_not_seen(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let (plain, marked) = (Fixture::new("portable.c"), Fixture::new("looks_like_go.c"));
        let qemu = copied(&plain, &folder.path().join("qemu-aarch64"));
        for (program, start) in [
            (plain.program(), None),
            (marked.program(), Some("Go's heap is not seen")),
            (qemu.as_path(), Some("qemu emulates the program")),
        ] {
            let traced = run(engine, &[program.as_ref()]);
            let notes = traced.succeeded().notes();
            let told = notes
                .iter()
                .filter(|note| start.is_some_and(|start| note.starts_with(start)));
            assert_eq!(told.count(), usize::from(start.is_some()), "{notes:?}");
        }
    }

    fn the_heap_of_a_jvm_is_not_seen(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let flags = ["-shared", "-fPIC", "-Dmain=unused"]
            .map(str::to_owned)
            .to_vec();
        let library = Fixture::built(
            "portable.c",
            &Build {
                flags,
                compiler: None,
            },
        );
        let library = copied(&library, &folder.path().join("libjvm.so"));
        let preload = format!("LD_PRELOAD={}", library.display());
        let program = Fixture::new("portable.c");
        let words = [
            "env".as_ref(),
            OsStr::new(&preload),
            program.program().as_ref(),
        ];
        let traced = run(engine, &words);
        let notes = traced.succeeded().notes();
        assert!(
            notes
                .iter()
                .any(|note| note.starts_with("Java's heap is not seen")),
            "{notes:?}"
        );
    }

    /// Code with another view to be written by: an int3 cannot be put where its calls return to.
    fn calls_that_cannot_be_counted_are_named(engine) {
        let program = Fixture::new("other_view.c").program().display().to_string();
        let finished = run_to_text(engine, &program);
        let expected = match engine {
            Engine::Auto => "leaktap: 1,000 B in 10 blocks left, at 1 call site\n",
            Engine::Breakpoint => "leaktap: no unfreed blocks were seen; not counted: 10 calls\n",
        };
        let report = finished.succeeded().stderr_text();
        assert!(report.ends_with(expected), "{report}");
    }

    fn without_an_allocator_of_its_own_the_reason_is_told(engine) {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let flags = vec!["-static".to_owned(), "-s".to_owned()];
        let blind = Fixture::built(
            "portable.c",
            &Build {
                flags,
                compiler: None,
            },
        );
        let program = folder.path().join("valgrind/memcheck-amd64-linux");
        let program = copied(&blind, &program).display().to_string();
        let finished = run_to_text(engine, &program);
        let is_told = finished.stderr_text().contains("run it without valgrind");
        assert!(
            finished.status.code() == Some(125) && is_told,
            "{}",
            finished.shown()
        );
    }
}
