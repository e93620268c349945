//! Reports that a format may have trouble with.

use crate::formats::text::tests::{add, frame, report};
use crate::{Course, Frame, Growth, Hex, Module, ModuleId, Moment, Report, Source};

/// A report.
pub(super) struct Model {
    pub(super) name: &'static str,
    pub(super) report: Report,
    /// No number is larger than all formats can have.
    pub(super) has_sums: bool,
}

/// Names that mean something to a terminal, a browser, a spreadsheet or a parser.
const HOSTILE: &[&str] = &[
    "\x1b[2J\x07\u{9b}31m",
    "</title><script>alert(1)</script>&amp;<!--]]>",
    "=HYPERLINK(\"x\",\"y\")",
    "\u{202e}gpj.exe\u{2066}\u{fffe}\u{ffff}",
    "a\nb\r\nc\0",
    "f;g;h 12 13",
    "# not a comment",
    "f #1",
    "::error file=x::y%0A",
    "\"quoted\", 'and', `so`",
    "n0: 12 0x1: x (in y)",
    "fn=(1) f",
    "\u{fffd}\u{fffd}",
    " \t ",
    "",
];

pub(super) fn models() -> Vec<Model> {
    let model = |name, report| Model {
        name,
        report,
        has_sums: true,
    };
    vec![
        model("empty", report()),
        model("default", Report::default()),
        model("no names", no_names()),
        model("hostile", hostile()),
        model("many", many()),
        model("inlined", inlined()),
        Model {
            has_sums: false,
            ..model("largest", largest())
        },
    ]
}

fn no_names() -> Report {
    let mut all = report();
    let nameless = Frame {
        function: None,
        file: None,
        line: None,
        ..frame("", "", 0)
    };
    let nowhere = Frame {
        module: None,
        offset: None,
        ..nameless.clone()
    };
    let ages = [(1.0, 2, 20)];
    add(&mut all, &[nameless, nowhere, Frame::default()], &ages);
    add(&mut all, &[], &ages);
    add(&mut all, &[Frame::default()], &[(0.0, 1, 0)]);
    all.sites[2].truncated = Some("no frame".to_owned());
    all
}

fn hostile() -> Report {
    let mut all = report();
    for (line, &name) in (1..).zip(HOSTILE) {
        let outer = Frame {
            inlined: line % 2 == 0,
            ..frame(name, name, line)
        };
        add(&mut all, &[outer, frame("main", "a.c", 1)], &[(1.0, 3, 30)]);
        let site = all.sites.last_mut().unwrap();
        site.function = name.to_owned();
        site.family = Some(name.to_owned());
        site.truncated = Some(name.to_owned());
        site.culprit = site.frames.first().copied();
    }
    let name = HOSTILE.concat();
    all.modules[0].path.clone_from(&name);
    all.modules[0].build_id = Some(name.clone());
    all.target.args = vec![name.clone(); 3];
    all.target.program.clone_from(&name);
    all.leaktap.clone_from(&name);
    all.started.clone_from(&name);
    all.notes = vec![name];
    all
}

fn many() -> Report {
    let mut all = report();
    for number in 0..10_000u32 {
        let frames = [
            frame(&format!("f{number}"), "a.c", number),
            frame(&format!("g{}", number % 100), "b.c", number % 100),
            frame("main", "main.c", 1),
        ];
        let (blocks, bytes) = (u64::from(number % 7) + 1, u64::from(number) * 48);
        add(&mut all, &frames, &[(f64::from(number), blocks, bytes)]);
    }
    let moment = |number: u32| Moment {
        at: f64::from(number) / 10.0,
        live_bytes: u64::from(number) * 1000,
        live_blocks: 3,
        agent: 0,
        rss: 1,
        pss: None,
        vm_data: 2,
        vm_size: 3,
    };
    all.timeline = (0..512).map(moment).collect();
    all
}

/// C++ with a region, and what grows.
fn inlined() -> Report {
    let mut all = report();
    all.modules.push(Module {
        path: "/usr/bin/x".to_owned(),
        svma: Hex(0x40_0000),
        ..Module::default()
    });
    let inner = Frame {
        inlined: true,
        module: Some(ModuleId(1)),
        ..frame("std::vector<int>::push_back(int&&)", "stl_vector.h", 7)
    };
    let frames = [inner, frame("fill", "x.cpp", 1), frame("main", "x.cpp", 2)];
    add(&mut all, &frames, &[(9.0, 1, 64), (1.0, 2, 32)]);
    all.sites[0].growth = Some(Growth {
        bytes_per_second: Some(-1.5),
        p: None,
        pattern: Some(Course::Growing),
        text: None,
    });
    add(&mut all, &frames, &[(9.0, 1, 4096)]);
    all.sites[1].source = Source::Mapping;
    all.sites[1].family = None;
    for site in &mut all.sites {
        site.allocated_blocks = Some(9);
        site.allocated_bytes = Some(5000);
    }
    all
}

fn largest() -> Report {
    let mut all = report();
    let most = u64::MAX;
    add(
        &mut all,
        &[frame("f", "a.c", u32::MAX)],
        &[(f64::MAX, most, most)],
    );
    add(&mut all, &[frame("g", "a.c", 1)], &[(1.0, 1, most)]);
    all.sites[0].allocated_blocks = Some(most);
    all.sites[0].allocated_bytes = Some(most);
    all.modules[0].svma = Hex(most);
    all.frames[0].offset = Some(Hex(most));
    all.duration = f64::MAX;
    all
}
