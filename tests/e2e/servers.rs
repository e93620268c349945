//! Real servers under load: their clients see no error, they live on, and are afterwards what they
//! were.

use std::process::Command;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use crate::child::{Finished, Watched};
use crate::clean::Snapshot;
use crate::engines::{Engine, engines};
use crate::leaktap::{Traced, attach};
use crate::server::{Postgres, client, free_port, nginx, redis};
use crate::tools;

/// The report of a server: it saw allocations, lost none, and its sums add up.
fn plausible(traced: &Traced) {
    let report = traced.succeeded();
    let total = |name| report.total(name);
    assert!(total("allocations") > 0, "{}", report.summary());
    assert_eq!(
        total("allocations"),
        total("frees") - total("unmatched_frees") + total("live_blocks"),
        "{}",
        report.summary()
    );
    assert_eq!(total("lost_events"), 0, "{}", report.summary());
}

/// As before, but for the descriptors: a server closes connections when it likes.
fn unchanged(before: &Snapshot, pid: Pid, traced: &Traced) {
    let changes: Vec<String> = before
        .changes(pid)
        .into_iter()
        .filter(|line| !line.starts_with("descriptors"))
        .collect();
    if !changes.is_empty() {
        traced.fail("the server is not what it was", &changes);
    }
    kill(pid, None).expect("the server lives");
}

/// Attaches to `pid` while `load` runs, and once more while nothing happens. Returns what the
/// server is called.
fn under_load(engine: Engine, pid: Pid, load: impl Fn() -> Finished) -> String {
    load();
    let before = Snapshot::of(pid);
    let tracing = attach(engine, pid, &[]);
    load();
    let traced = tracing.detach();
    plausible(&traced);
    unchanged(&before, pid, &traced);
    load();
    let idle = attach(engine, pid, &["--duration", "100ms"]).wait();
    let program = idle.succeeded().at("/target/program");
    unchanged(&before, pid, &idle);
    program.as_str().unwrap_or_default().to_owned()
}

const PYTHON: &str = "
import json, select, sys, zlib
print('ready', flush=True)
count = check = 0
while not select.select([sys.stdin], [], [], 0)[0] or count < 300:
    text = json.dumps({'n': count, 'list': list(range(count % 50)), 'text': 'x' * (count % 700)})
    check ^= zlib.crc32(json.loads(text)['text'].encode()) ^ zlib.crc32(b'x' * (count % 700))
    count += 1
print('done', check, flush=True)
sys.stdin.readline()
sys.stdin.readline()
";

engines! {
    fn redis_under_redis_benchmark(engine) {
        let port = free_port();
        let (Some(benchmark), Some(server)) = (tools::program("redis-benchmark"), redis(port))
        else {
            return;
        };
        let port = port.to_string();
        let program = under_load(engine, server.pid, || {
            let mut command = Command::new(&benchmark);
            let finished = client(command.args([
                "-p",
                &port,
                "-n",
                "2000",
                "-c",
                "20",
                "-r",
                "500",
                "--csv",
                "-t",
                "set,get,lpush,sadd,hset",
            ]));
            assert!(
                !finished.stdout_text().to_lowercase().contains("error"),
                "{}",
                finished.shown()
            );
            assert_eq!(
                finished
                    .stderr_text()
                    .to_lowercase()
                    .matches("error")
                    .count(),
                0,
                "{}",
                finished.shown()
            );
            finished
        });
        // Its file may be called redis-check-rdb.
        assert!(program.ends_with("/redis-server"), "{program}");
        assert!(server.process.stdout_line("Ready").contains("Ready"));
    }

    fn nginx_under_ab(engine) {
        let port = free_port();
        let (Some(ab), Some(server)) = (tools::program("ab"), nginx(port, 20_000)) else {
            return;
        };
        let url = format!("http://127.0.0.1:{port}/index.html");
        under_load(engine, server.pid, || {
            let finished = client(Command::new(&ab).args([
                "-n",
                "1000",
                "-c",
                "8",
                "-H",
                "Accept-Encoding: gzip",
                &url,
            ]));
            let text = finished.stdout_text();
            let line = |name| {
                text.lines()
                    .find(|line| line.starts_with(name))
                    .unwrap_or_default()
                    .to_owned()
            };
            assert!(
                line("Failed requests:").ends_with(" 0"),
                "{}",
                finished.shown()
            );
            assert!(
                line("Complete requests:").ends_with(" 1000"),
                "{}",
                finished.shown()
            );
            assert_eq!(line("Non-2xx"), "", "{}", finished.shown());
            finished
        });
    }

    fn a_postgresql_backend_under_pgbench(engine) {
        let Some(postgres) = Postgres::start() else {
            return;
        };
        client(postgres.client("pgbench").args(["-i", "-q", "-s", "1"]));
        let mut bench = postgres.client("pgbench");
        let mut bench = Watched::spawn(bench.args(["-n", "-T", "10", "-c", "1"]));
        bench.close_stdin();
        // Its first connection only looks at the tables, and is closed; the next one updates them.
        let backend = "select pid from pg_stat_activity where application_name = 'pgbench'";
        let works = format!("{backend} and query like 'UPDATE pgbench_%'");
        let awaited = format!(
            "do $$ begin while not exists({works}) loop \
             perform pg_stat_clear_snapshot(); end loop; end $$"
        );
        client(postgres.client("psql").args(["-X", "-q", "-c", &awaited]));
        let pid = Pid::from_raw(postgres.value(backend).parse().expect("a process id"));
        let traced = attach(engine, pid, &["--duration", "2s"]).wait();
        plausible(&traced);
        let left = crate::clean::left_behind(pid);
        assert!(left.is_empty() && kill(pid, None).is_ok(), "{left:?}");
        let finished = bench.finish().succeeded();
        assert!(
            finished
                .stdout_text()
                .contains("number of failed transactions: 0"),
            "{}",
            finished.shown()
        );
        assert_eq!(postgres.value("select 6 * 7"), "42");
    }

    fn a_python_loop(engine) {
        let Some(python) = tools::program("python3") else {
            return;
        };
        let mut command = Command::new(python);
        let mut target = crate::fixture::Target::start(
            command.args(["-c", PYTHON]).env("PYTHONMALLOC", "malloc"),
        );
        let before = Snapshot::of(target.pid());
        let traced = attach(engine, target.pid(), &["--duration", "1s"]).wait();
        plausible(&traced);
        unchanged(&before, target.pid(), &traced);
        target.work();
        let finished = target.end().succeeded();
        assert_eq!(
            finished.stdout_text(),
            "ready\ndone 0\n",
            "{}",
            finished.shown()
        );
    }
}
