//! How memory changes in the course of a trace, and when it will be too much.

use serde_json::Value;

use crate::engines::{Engine, engines};
use crate::fixture::Fixture;
use crate::leaktap::{attach, leaktap};
use crate::report::Report;

const LIMIT: u64 = 256 << 20;

/// What `growing` and `table` of the fixture had, and the report of a capture as text.
struct Watched {
    report: Report,
    utf8: String,
    ascii: String,
}

/// Watches a program that grows for some two seconds.
fn watched(engine: Engine) -> Watched {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let capture = folder.path().join("capture");
    let capture = capture.to_str().expect("a path");
    let mut target = Fixture::new("grows.c").start();
    let interval = ["--interval", "100ms", "--duration", "2s", "-o", capture];
    let tracing = attach(engine, target.pid(), &interval);
    target.begin();
    let traced = tracing.wait();
    let report = traced.succeeded();
    target.end().succeeded();
    let text = |locale: &str| {
        let mut command = leaktap();
        let shown = command.args(["report", capture]).env("LC_ALL", locale);
        let shown = shown.output().expect("leaktap report");
        String::from_utf8(shown.stdout).expect("text")
    };
    Watched {
        report: Report::parse(&report.at("").to_string()).expect("a report"),
        utf8: text("C.UTF-8"),
        ascii: text("C"),
    }
}

fn numbers(list: &Value) -> Vec<u64> {
    let list = list.as_array().expect("a list");
    list.iter().filter_map(Value::as_u64).collect()
}

/// The function of the innermost frame of a site of `report`.
fn function(site: &Value, report: &Report) -> String {
    let frame = site["frames"][0].as_u64().expect("a frame");
    let name = report.at(&format!("/frames/{frame}/function"));
    name.as_str().unwrap_or_default().to_owned()
}

fn site(name: &str, report: &Report) -> Value {
    let sites = report.at("/sites").as_array().expect("sites");
    let site = sites.iter().find(|site| function(site, report) == name);
    site.unwrap_or_else(|| panic!("{name}: {}", report.summary()))
        .clone()
}

fn check_moments(report: &Report) {
    let moments = report.at("/timeline").as_array().expect("a list");
    assert!(moments.len() >= 10, "{moments:?}");
    let of = |key: &str| numbers(&moments.iter().map(|moment| moment[key].clone()).collect());
    let live = of("live_bytes");
    assert!(live.is_sorted() && live.last() > live.first(), "{live:?}");
    let resident = of("rss").into_iter().zip(of("agent"));
    assert!(
        resident.clone().all(|(rss, agent)| rss > agent),
        "{resident:?}"
    );
    let pss = of("pss");
    assert!(
        !pss.is_empty() && pss.iter().all(|pss| *pss > 0),
        "{moments:?}"
    );
}

fn check_sites(report: &Report) {
    let times = report.at("/series_at").as_array().expect("a list").len();
    assert!(times >= 5, "{times}");
    let grows = site("growing", report);
    let series = numbers(&grows["series"]);
    assert!(series.len() == times && series.is_sorted(), "{series:?}");
    let growth = &grows["growth"];
    assert!(growth["p"].as_f64() < Some(0.05), "{growth}");
    assert_eq!(grows["trend"]["p"], growth["p"]);
    let rate = growth["bytes_per_second"].as_f64().expect("a rate");
    assert!((1e4..=65536.0 * 50.0 * 1.1).contains(&rate), "{growth}");
    let stays = site("table", report);
    assert_eq!(numbers(&stays["series"]).last(), Some(&4096), "{stays}");
    assert_eq!(stays["trend"]["bytes_per_second"], 0.0, "{stays}");
    assert_ne!(stays["growth"]["pattern"], "growing");
    let peak = report.at("/peak");
    let first = &peak["sites"][0];
    assert_eq!(function(first, report), "growing");
    assert!(first["bytes"].as_u64() <= peak["live_bytes"].as_u64());
    assert!(peak["live_bytes"].as_u64() <= Some(report.total("peak_bytes")));
}

fn check_forecast(report: &Report) {
    let forecast = report.at("/forecast");
    assert_eq!(forecast["limit"], "RLIMIT_DATA", "{forecast}");
    assert_eq!(forecast["bytes"], LIMIT);
    assert!(forecast["p"].as_f64() < Some(0.05), "{forecast}");
    let (used, rate) = (
        forecast["used"].as_f64(),
        forecast["bytes_per_second"].as_f64(),
    );
    let seconds = used
        .zip(rate)
        .map(|(used, rate)| (LIMIT as f64 - used) / rate);
    assert_eq!(forecast["seconds"].as_f64(), seconds.map(f64::round));
}

engines! {
    fn what_grows_is_seen_to_grow_and_to_reach_its_limit(engine) {
        let Watched { report, utf8, ascii } = watched(engine);
        check_moments(&report);
        check_sites(&report);
        check_forecast(&report);
        for (text, highest) in [(&utf8, '█'), (&ascii, '#')] {
            let line = |label: &str| {
                let line = text.lines().find(|line| line.starts_with(label));
                line.unwrap_or_else(|| panic!("{label}: {text}"))
            };
            assert!(line("  RSS  ").contains(highest), "{text}");
            assert!(line("  live  ").contains(highest), "{text}");
            let forecast = line("  forecast  ");
            assert!(forecast.contains("/s) RLIMIT_DATA of 256.0 MiB is reached in "), "{text}");
        }
        assert!(!ascii.contains('█'), "{ascii}");
    }
}
