use std::slice;

use super::*;
use crate::{
    Age, By, Course, Exit, Family, Frame, FrameId, Growth, Heap, Hex, Json, Mode, Module, ModuleId,
    Own, Probe, ProbeKind, SCHEMA, Selection, Site, Source, Target, Totals,
};

/// A report without sites.
pub(crate) fn report() -> Report {
    Report {
        schema: SCHEMA,
        leaktap: "0.1.0".to_owned(),
        target: Target {
            pid: 42,
            parent: None,
            program: "/usr/bin/x".to_owned(),
            args: vec!["x".to_owned()],
            threads: 8,
            exit: None,
            executable: None,
            detached: true,
        },
        mode: Mode::Attach,
        engine: "auto".to_owned(),
        started: "2026-11-23T16:25:50Z".to_owned(),
        duration: 10.2,
        probes: vec![Probe {
            function: "malloc".to_owned(),
            family: Some("libc".to_owned()),
            module: "/lib/libc.so.6".to_owned(),
            address: Hex(0x1000),
            kind: ProbeKind::Breakpoint,
            reason: None,
        }],
        totals: Totals {
            heap: Heap {
                allocations: 1234,
                allocated_bytes: 20_480,
                frees: 1,
                unmatched_frees: 1,
                live_blocks: 3,
                live_bytes: 192,
                peak_bytes: 9000,
            },
            ..Totals::default()
        },
        modules: vec![module(None)],
        ..Report::default()
    }
}

fn module(build_id: Option<&str>) -> Module {
    Module {
        path: "/usr/bin/x".to_owned(),
        build_id: build_id.map(str::to_owned),
        base: Hex(0x55d0_c000),
        svma: Hex(0),
    }
}

/// A frame of the module that a [`report`] has.
pub(crate) fn frame(function: &str, file: &str, line: u32) -> Frame {
    Frame {
        address: Some(Hex(0x55d0_c0de)),
        module: Some(ModuleId(0)),
        offset: Some(Hex(0xde)),
        function: Some(function.to_owned()),
        file: Some(file.to_owned()),
        line: Some(line),
        ..Frame::default()
    }
}

/// Adds a frame.
pub(crate) fn push(report: &mut Report, frame: Frame) -> FrameId {
    report.frames.push(frame);
    FrameId(report.frames.len() as u32 - 1)
}

/// Adds a site of these frames; `ages` are age, blocks and bytes.
pub(crate) fn add(report: &mut Report, frames: &[Frame], ages: &[(f64, u64, u64)]) {
    let frames = frames.iter().cloned().map(|frame| push(report, frame));
    let frames = frames.collect();
    let ages: Vec<Age> = ages.iter().copied().map(Age::from).collect();
    report.sites.push(Site {
        family: Some("libc".to_owned()),
        function: "malloc".to_owned(),
        blocks: ages.iter().map(|a| a.blocks).sum(),
        bytes: ages.iter().map(|a| a.bytes).sum(),
        youngest: ages.iter().map(|a| a.age).fold(f64::MAX, f64::min),
        oldest: ages.iter().map(|a| a.age).fold(0.0, f64::max),
        frames,
        ages,
        ..Site::default()
    });
}

/// Compares with a file of `golden/`, or writes it if LEAKTAP_UPDATE=1.
fn golden(name: &str, found: &str) {
    let path = format!("{}/src/formats/golden/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("LEAKTAP_UPDATE").is_some_and(|value| value == "1") {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{path}: update it with LEAKTAP_UPDATE=1");
}

fn rendered(report: &Report, style: Style) -> String {
    let mut text = Vec::new();
    let reports = slice::from_ref(report);
    let text_of = Text {
        style,
        ..Text::default()
    };
    text_of.write(reports, &mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// C, C++ with inlined frames, a region, a stack that breaks off, and something for each note.
fn leaky() -> Report {
    let mut leaky = report();
    leaky.modules.push(module(Some("c0ffee")));
    let push_back = "std::vector<int, std::allocator<int> >::push_back(int&&)";
    let innermost = Frame {
        inlined: true,
        module: Some(ModuleId(1)),
        ..frame(push_back, "/usr/include/c++/12/bits/stl_vector.h", 1294)
    };
    let cpp = [("fill(Cache&)", 30), ("main", 41), ("_start", 0)];
    let cpp = cpp.map(|(name, line)| frame(name, "/src/cache.cpp", line));
    let cpp = [&[innermost], &cpp[..]].concat();
    add(&mut leaky, &cpp, &[(1.0, 1, 20_800)]);
    add(
        &mut leaky,
        &[frame("grow", "/src/pool.c", 7)],
        &[(9.5, 1, 16_384)],
    );
    let nameless = Frame {
        address: Some(Hex(0x55d0_c0ff)),
        offset: Some(Hex(0xff)),
        by_frame_pointer: true,
        function: None,
        file: None,
        line: None,
        ..frame("", "", 0)
    };
    let cut = [frame("leak_here", "/src/x.c", 12), nameless];
    add(&mut leaky, &cut, &[(0.4, 2, 128), (9.1, 1, 64)]);
    leaky.sites[0].function = "operator new".to_owned();
    let region = &mut leaky.sites[1];
    (region.source, region.function) = (Source::Mapping, "mmap".to_owned());
    region.family = None;
    leaky.sites[2].allocated_blocks = Some(9_031);
    leaky.sites[2].truncated = Some("no rule".to_owned());
    leaky.notes.push("something".to_owned());
    leaky.probes[0].kind = ProbeKind::None;
    leaky.probes[0].reason = Some("TooShort".to_owned());
    let heap = |of: fn(&Site) -> u64| of(&leaky.sites[0]) + of(&leaky.sites[2]);
    leaky.totals = Totals {
        heap: Heap {
            live_blocks: heap(|site| site.blocks),
            live_bytes: heap(|site| site.bytes),
            ..leaky.totals.heap
        },
        mapped_regions: 1,
        mapped_bytes: 16_384,
        lost_events: 2,
        truncated_stacks: 1,
        ..leaky.totals
    };
    Own::default().mark(&mut leaky);
    leaky
}

#[test]
fn reads_like_this() {
    golden("plain.txt", &rendered(&leaky(), Style::default()));
}

#[test]
fn verbose_adds_names_in_full_ids_and_probes() {
    let verbose = Style {
        verbose: true,
        ..Style::default()
    };
    golden("verbose.txt", &rendered(&leaky(), verbose));
}

#[test]
fn colours_change_nothing_else() {
    let color = Style {
        color: true,
        ..Style::default()
    };
    let colored = rendered(&leaky(), color);
    let mut plain = colored.clone();
    for code in ["\x1b[0m", "\x1b[1m", "\x1b[2m"] {
        assert!(colored.contains(code));
        plain = plain.replace(code, "");
    }
    assert_eq!(plain, rendered(&leaky(), Style::default()));
}

#[test]
fn groups_have_a_line_each() {
    for (by, name) in [
        (By::Site, "by-site.txt"),
        (By::Function, "by-function.txt"),
        (By::File, "by-file.txt"),
        (By::Module, "by-module.txt"),
    ] {
        let selection = Selection {
            by,
            ..Selection::default()
        };
        let text = rendered(&selection.apply(leaky()), Style::default());
        golden(name, &text);
    }
}

#[test]
fn json_is_schema_2() {
    let mut report = leaky();
    report.target.exit = Some(Exit::Signal(9));
    let mut report = Selection::default().apply(report);
    let pretty = serde_json::to_string_pretty(&report).unwrap();
    golden("schema-2.json", &format!("{pretty}\n"));
    let mut line = Vec::new();
    Json.write(slice::from_ref(&report), &mut line).unwrap();
    assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
    // Words for people are made where they are printed.
    for growth in report
        .sites
        .iter_mut()
        .filter_map(|site| site.growth.as_mut())
    {
        growth.text = None;
    }
    assert_eq!(serde_json::from_slice::<Report>(&line).unwrap(), report);
}

fn last_line_of(selection: Selection, top: Option<usize>, report: Report) -> String {
    let text = Text {
        top,
        ..Text::default()
    };
    let mut lines = Vec::new();
    let report = selection.apply(report);
    text.write(slice::from_ref(&report), &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    lines.lines().next_back().unwrap_or_default().to_owned()
}

#[test]
fn the_last_line_says_what_is_left_even_if_it_is_not_listed() {
    let all = Selection::default();
    let none = Selection {
        min_size: 1 << 30,
        ..all
    };
    let mut freed = report();
    (freed.totals.heap.live_blocks, freed.totals.heap.live_bytes) = (0, 0);
    let mut lossy = freed.clone();
    lossy.totals.lost_events = 2;
    for (selection, top, report, expected) in [
        (all, None, freed, "leaktap: no unfreed blocks"),
        (
            all,
            None,
            lossy,
            "leaktap: no unfreed blocks were seen; not counted: 2 calls",
        ),
        (
            all,
            None,
            leaky(),
            "leaktap: 36.5 KiB (37,376 B) in 4 blocks and 1 region left, at 3 call sites; \
             not counted: 2 calls",
        ),
        (
            all,
            Some(1),
            leaky(),
            "leaktap: 20.3 KiB (20,800 B) in 1 block at 1 call site listed, \
             of 36.5 KiB (37,376 B) in 4 blocks and 1 region left; not counted: 2 calls",
        ),
        (
            none,
            None,
            leaky(),
            "leaktap: none of 36.5 KiB (37,376 B) in 4 blocks and 1 region left is listed; \
             not counted: 2 calls",
        ),
    ] {
        assert_eq!(last_line_of(selection, top, report), expected);
    }
}

#[test]
fn more_sites_than_wanted_are_counted() {
    let text = Text {
        top: Some(2),
        ..Text::default()
    };
    let mut lines = Vec::new();
    text.write(&[leaky()], &mut lines).unwrap();
    let lines = String::from_utf8(lines).unwrap();
    assert!(lines.contains("\n  2. "), "{lines}");
    assert!(!lines.contains("\n  3. "), "{lines}");
    assert!(lines.contains("\n… 1 more (--top 0)\n"), "{lines}");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for width in [64, 80, 100] {
        let style = Style {
            width: Some(width),
            ..Style::default()
        };
        let text = rendered(&leaky(), style);
        let columns = |line: &str| line.chars().count();
        let widest = text.lines().map(columns).max();
        assert!(widest <= Some(width), "{text}");
    }
}

/// A stack of each sort of code, whole and told.
#[test]
fn library_frames_are_folded_and_those_of_the_runtime_dropped() {
    let mut told = report();
    let header = "/usr/include/c++/12/bits/x.h";
    let stack = [
        frame(
            "std::vector<int, std::allocator<int> >::_M_insert(int)",
            header,
            3,
        ),
        frame(
            "std::vector<int, std::allocator<int> >::push_back(int)",
            header,
            4,
        ),
        frame("void fill<int>(Cache&)", "/home/u/app/src/cache.cpp", 30),
        frame("std::__invoke<void (*)()>(void (*)())", header, 5),
        frame("std::function<void ()>::operator()() const", header, 6),
        frame("walk(int)", "/home/u/app/src/walk.cpp", 8),
        frame("walk(int)", "/home/u/app/src/walk.cpp", 8),
        frame("serve(int)", "/home/u/app/lib/serve.cpp", 9),
        frame("std::thread::_Invoker<void (*)()>::operator()()", header, 6),
        frame("start_thread", "./nptl/pthread_create.c", 442),
        frame("clone3", "../sysdeps/unix/sysv/linux/x86_64/clone3.S", 81),
    ];
    let mut ids: Vec<_> = stack
        .iter()
        .map(|frame| push(&mut told, frame.clone()))
        .collect();
    ids[6] = ids[5];
    add(&mut told, &[], &[(1.0, 2, 64)]);
    told.sites[0].frames = ids;
    Own::default().mark(&mut told);
    golden("told.txt", &rendered(&told, Style::default()));
    let narrow = Style {
        width: Some(60),
        ..Style::default()
    };
    golden("narrow.txt", &rendered(&told, narrow));
}

#[test]
fn the_target_cannot_write_to_the_terminal() {
    let evil = "\x1b]0;evil\x07\nleaktap: no unfreed blocks";
    let mut report = leaky();
    let (site, probe) = (&mut report.sites[0], &mut report.probes[0]);
    let (frame, module) = (&mut report.frames[0], &mut report.modules[1]);
    for text in [
        &mut report.target.program,
        &mut site.function,
        &mut module.path,
        &mut probe.function,
        &mut probe.module,
    ] {
        *text = evil.to_owned();
    }
    site.growth = Some(Growth {
        bytes_per_second: None,
        p: None,
        pattern: Some(Course::Growing),
        text: Some(evil.to_owned()),
    });
    for text in [
        &mut frame.function,
        &mut frame.file,
        &mut module.build_id,
        &mut site.truncated,
        &mut probe.reason,
    ] {
        *text = Some(evil.to_owned());
    }
    // Its module is shown where it has no file.
    let no_file = Frame {
        file: None,
        ..frame.clone()
    };
    add(&mut report, &[no_file], &[]);
    report.notes.push(evil.to_owned());
    for verbose in [false, true] {
        let style = Style {
            verbose,
            ..Style::default()
        };
        let text = rendered(&report, style);
        assert!(
            !text.contains(|c: char| c.is_control() && c != '\n'),
            "{text}"
        );
        assert!(!text.contains("\nleaktap: nothing"), "{text}");
    }
}

#[test]
fn sums_of_a_forged_capture_do_not_overflow() {
    let mut report = leaky();
    for site in &mut report.sites {
        (site.blocks, site.bytes) = (u64::MAX, u64::MAX);
    }
    report.totals.heap.live_blocks = u64::MAX;
    report.totals.suppressed_blocks = u64::MAX;
    rendered(&report, Style::default());
}

/// Never a sum: the objects lie in the chunks.
#[test]
fn several_allocators_are_told_apart() {
    let mut several = leaky();
    several.sites[0].family = Some("pool".to_owned());
    let heap = |site: &Site| Heap {
        allocations: site.blocks,
        allocated_bytes: site.bytes,
        live_blocks: site.blocks,
        live_bytes: site.bytes,
        ..Heap::default()
    };
    several.families = [("libc", 2), ("pool", 0)]
        .map(|(name, site)| Family {
            name: name.to_owned(),
            heap: heap(&several.sites[site]),
        })
        .to_vec();
    golden("families.txt", &rendered(&several, Style::default()));
}
