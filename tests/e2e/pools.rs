//! Allocators that leaktap is told of.

use std::process::Command;

use crate::compare::exact;
use crate::engines::{Engine, engines};
use crate::exact::worked;
use crate::fixture::{Fixture, Target};
use crate::leaktap::{attach, leaktap_with, run_with};
use crate::tools;
use crate::truth::Mode;

const POOL: &str = "pool_get:size=1,returns pool_get_m*:count=0,size=1,returns \
                    pool_store:size=0,out=1 pool!pool_change:ptr=0,size=1,returns \
                    pool_fails:size=0,returns pool_name:size=0,returns pool_put:ptr=1";

fn told(engine: Engine, spec: &str) {
    let fixture = Fixture::new("pool.c");
    let options = ["--alloc-fn", spec];
    let traced = worked(&fixture, engine, &options);
    let families = traced.report().families();
    let sums = families.iter().map(|family| {
        let sum = |name| family.total(name);
        (sum("allocations"), sum("frees"), sum("live_blocks"))
    });
    // No sum of both is anywhere.
    assert_eq!(sums.collect::<Vec<_>>(), [(3, 1, 2), (111, 104, 7)]);
    assert_eq!(traced.report().total("allocations"), 111);
    let traced = run_with(
        engine,
        &options,
        &[fixture.program().as_ref(), "run".as_ref()],
    );
    exact(&fixture, &traced, Mode::Run);
}

engines! {
    fn objects_of_a_pool_and_its_chunks_both_count(engine) {
        told(engine, POOL);
    }

    fn a_function_without_a_name_is_found_by_its_offset(engine) {
        let fixture = Fixture::new("pool.c");
        let offset = offset_of(&fixture, "pool_put");
        let spec = POOL.replace("pool_put", &format!("pool!{offset}"));
        told(engine, &spec);
    }

    /// An int3 in the middle of an instruction would be another instruction.
    fn an_offset_at_which_no_function_begins_is_none(engine) {
        let fixture = Fixture::new("pool.c");
        let target = fixture.start();
        let begins = crate::report::hexadecimal(&offset_of(&fixture, "pool_put"));
        let spec = format!("pool!{:#x}:ptr=1", begins + 1);
        let traced = attach(
            engine,
            target.pid(),
            &["--alloc-fn", &spec, "--duration", "20ms"],
        )
        .wait();
        let notes = traced.succeeded().notes().join("\n");
        assert!(notes.contains("no module of the target has"), "{notes}");
        target.end().succeeded();
    }

    fn a_function_that_is_not_there_is_named(engine) {
        let target = Fixture::new("pool.c").start();
        let options = [
            "--alloc-fn",
            "pool_get:size=1,returns pool_putt:ptr=0",
            "--duration",
            "20ms",
        ];
        let traced = attach(engine, target.pid(), &options).wait();
        let notes = traced.succeeded().notes().join("\n");
        assert!(notes.contains("pool_putt"), "{notes}");
        assert!(!notes.contains("pool_get"), "{notes}");
        target.end().succeeded();
    }

    fn python_objects_are_exact(engine) {
        let Some(python) = tools::program("python3") else {
            return;
        };
        let code = "import sys\nprint('ready', flush=True)\nsys.stdin.readline()\n\
                    kept = [bytes(3000 + i) for i in range(50)]\n\
                    print('done', flush=True)\nsys.stdin.read()";
        let mut target = Target::start(Command::new(python).args(["-c", code]));
        let tracing = attach(engine, target.pid(), &["--alloc-fn", "@python"]);
        target.work();
        let report = tracing.detach();
        let sites = report.succeeded().sites();
        let of_python = sites.iter().filter(|site| site.family == "python");
        let blocks = of_python
            .filter(|site| site.bytes >= 50 * 3000)
            .map(|site| site.blocks);
        assert_eq!(blocks.max(), Some(50), "{}", report.report().summary());
        target.end().succeeded();
    }
}

#[test]
fn a_spec_that_makes_no_sense_is_refused_before_the_trace() {
    for (spec, word) in [
        ("get", "`get`"),
        ("get:size=9,returns", "`size=9`"),
        ("@gtk", "`@gtk`"),
    ] {
        let finished = leaktap_with(["run", "--alloc-fn", spec, "--", "true"]);
        assert_eq!(finished.status.code(), Some(2), "{}", finished.shown());
        assert!(
            finished.stderr_text().contains(word),
            "{}",
            finished.shown()
        );
    }
}

fn offset_of(fixture: &Fixture, function: &str) -> String {
    let listed = Command::new("nm")
        .arg(fixture.program())
        .output()
        .expect("nm");
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let mut lines = text.lines();
    let line = lines.find(|line| line.ends_with(&format!(" {function}")));
    let address = line.and_then(|line| line.split(' ').next());
    let address = address.expect("a symbol").trim_start_matches('0');
    format!("0x{address}")
}
