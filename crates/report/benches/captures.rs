//! What it costs to write and to show a capture of 100,000 call sites, in processor time:
//! `cargo bench -p leaktap-report`.
#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    missing_docs,
    reason = "a program that prints figures"
)]

use std::io;
use std::path::Path;
use std::time::Duration;

use leaktap_report::{
    By, Format, Frame, FrameId, Hex, Json, Module, ModuleId, Needs, Report, Selection, Site, Text,
    read, write,
};

const SITES: u32 = 100_000;
const FRAMES: u32 = 10_000;
const DEPTH: u32 = 25;
const ROUNDS: usize = 5;

/// The nearer to `main`, the fewer frames there are to choose from.
fn stack(site: u32) -> Vec<FrameId> {
    let frame = |depth: u32| {
        let choices = (FRAMES >> depth.min(12)).max(1);
        FrameId(site.wrapping_mul(2_654_435_761).rotate_left(depth) % choices)
    };
    (0..DEPTH).map(frame).collect()
}

fn frame(id: u32) -> Frame {
    Frame {
        address: Some(Hex(0x5555_0000 + u64::from(id) * 40)),
        module: Some(ModuleId(0)),
        offset: Some(Hex(u64::from(id) * 40)),
        function: Some(format!(
            "std::vector<Item<{id}> >::insert(unsigned long, Item<{id}>&&)"
        )),
        file: Some(format!("/src/service/part{}/file{}.cpp", id % 40, id % 400)),
        line: Some(id % 2000),
        ..Frame::default()
    }
}

fn sample(folder: &Path) -> Report {
    // A report without sites, of a run that does nothing.
    let text = include_str!("../src/formats/golden/schema-2.json");
    let path = folder.join("none.json");
    std::fs::write(&path, text).unwrap();
    let mut report = read(&path, Needs::default()).unwrap().remove(0);
    report.modules = vec![Module::default()];
    report.frames = (0..FRAMES).map(frame).collect();
    let site = |site: u32| Site {
        family: Some("libc".to_owned()),
        function: "malloc".to_owned(),
        blocks: u64::from(site % 90),
        bytes: u64::from(site) * 48,
        oldest: f64::from(site) / 1000.0,
        frames: stack(site),
        ages: (0..3).map(|n| (f64::from(n), 1, 48).into()).collect(),
        ..Site::default()
    };
    report.sites = (0..SITES).map(site).collect();
    report
}

/// That of this thread: others may use the machine, too.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    let time = text.split(' ').next().unwrap();
    Duration::from_nanos(time.parse().unwrap())
}

fn median(mut run: impl FnMut()) -> Duration {
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let begun = processor_time();
            run();
            processor_time() - begun
        })
        .collect();
    times.sort();
    times[ROUNDS / 2]
}

fn main() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture");
    let report = sample(folder.path());
    let wrote = median(|| {
        write(&path, std::slice::from_ref(&report)).unwrap();
    });
    let mut reports = Vec::new();
    let needs = Needs {
        ages: true,
        stacks: true,
    };
    let read = median(|| reports = read(&path, needs).unwrap());
    let shown = |format: &dyn Format, by: By| {
        let selection = Selection {
            by,
            ..Selection::default()
        };
        median(|| {
            let chosen = selection.apply(reports[0].clone());
            format.write(&[chosen], &mut io::sink()).unwrap();
        })
    };
    let text = Text::default();
    let bytes = std::fs::metadata(&path).unwrap().len();
    println!("{SITES} sites, {FRAMES} frames, {DEPTH} a stack: {bytes} bytes");
    println!("written          {wrote:>10.1?}");
    println!("read             {read:>10.1?}");
    println!("shown as text    {:>10.1?}", shown(&text, By::Stack));
    println!("  by function    {:>10.1?}", shown(&text, By::Function));
    println!("shown as JSON    {:>10.1?}", shown(&Json, By::Stack));
}
