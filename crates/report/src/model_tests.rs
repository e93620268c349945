use serde_json::{Value, json};

use super::*;

/// All of schema 2, with a value for each key that may have one.
fn whole() -> Value {
    json!({
        "schema": 2,
        "leaktap": "0.2.0",
        "target": { "pid": 42, "parent": 1, "program": "/usr/bin/x", "args": ["x"], "threads": 8,
                    "exit": { "code": 0 }, "detached": false },
        "mode": "attach",
        "engine": "auto",
        "started": "2026-11-23T16:25:50Z",
        "duration": 10.2,
        "verdict": "Leaking 1.4 MiB/s",
        "stopped": { "attach": 0.0031, "detach": 0.0002, "longest": 0.0031 },
        "probes": [{ "function": "malloc", "family": "libc", "module": "/lib/libc.so.6",
                     "address": "0x1000", "kind": "detour", "reason": null }],
        "totals": { "allocations": 9, "frees": 6, "unmatched_frees": 0, "allocated_bytes": 576,
                    "live_blocks": 3, "live_bytes": 192, "peak_bytes": 400, "lost_events": 0,
                    "truncated_stacks": 0, "suppressed_blocks": 0, "suppressed_bytes": 0,
                    "runtime_blocks": 1, "runtime_bytes": 72704, "before_blocks": 5,
                    "before_bytes": 100, "mapped_regions": 0, "mapped_bytes": 0 },
        "modules": [{ "path": "/usr/bin/x", "build_id": "c0ffee", "base": "0x400000",
                      "svma": "0x400000" }],
        "frames": [{ "address": "0x401234", "module": 0, "offset": "0x1234", "function": "leak",
                     "file": "/src/x.c", "line": 12, "inlined": false, "own": true }],
        "sites": [{ "kind": "runtime", "source": "before", "family": "libc", "function": "malloc",
                    "blocks": 3, "bytes": 192, "allocated_blocks": 9, "allocated_bytes": 576,
                    "youngest": 0.4, "oldest": 9.1,
                    "growth": { "bytes_per_second": 12.0, "p": 0.001, "pattern": "turns over" },
                    "resident_bytes": 192,
                    "shape": { "size": 48, "holds": "vtable for Session", "like_site": 4 },
                    "culprit": 0, "frames": [0], "series": [192, null],
                    "alike": [{ "frames": [0], "blocks": 3, "bytes": 192 }] }],
        "snapshots": [{ "at": 3.0, "rung": "A", "stopped": 0.0011 }],
        "checked": { "graded": 4031, "freed_later": 2 },
        "memory": { "rss": 4096, "unexplained": 0,
                    "parts": [{ "what": "pinned", "bytes": 4096, "detail": "by x.c:12" }] },
        "timeline": [{ "at": 1.0, "live_bytes": 192, "live_blocks": 3, "rss": 4096, "agent": 0,
                       "pss": 4096, "vm_data": 8192, "vm_size": 8192 }],
        "series_at": [1.0, 10.2],
        "peak": { "at": 1.0, "live_bytes": 192,
                  "sites": [{ "function": "malloc", "bytes": 192, "frames": [0] }] },
        "forecast": { "limit": "memory.max", "bytes": 8192, "used": 4096,
                      "bytes_per_second": 1.5, "p": 0.001, "seconds": 2731.0 },
        "children": [{ "pid": 43, "program": "/bin/sh", "traced": false }],
        "notes": ["something"]
    })
}

/// What a later leaktap has found out is not lost, nor changed.
#[test]
fn all_of_the_schema_is_read_and_written() {
    let whole = whole();
    let report: Report = serde_json::from_value(whole.clone()).unwrap();
    assert_eq!(report.missing(), None);
    assert_eq!(serde_json::to_value(&report).unwrap(), whole);
    let words = ["growing", "full", "turns over", "start-up", "stopped"];
    for word in words {
        let course: Course = serde_json::from_value(json!(word)).unwrap();
        assert_eq!(serde_json::to_value(course).unwrap(), json!(word));
    }
}

/// What leaktap cannot tell yet of any site: 19,000 of them would be 1.7 MB longer.
const NOT_YET: [&str; 4] = [
    "allocated_blocks",
    "allocated_bytes",
    "resident_bytes",
    "shape",
];

/// What only some sites have.
const SOME_HAVE: [&str; 2] = ["alike", "series"];

/// Most bytes of a site of no frames: a compiler run of 19,000 sites makes less than 8 MB.
const LONGEST: usize = 180;

/// A number that leads to nothing is found wherever it is.
#[test]
fn frames_of_the_peak_have_to_be_there() {
    let mut whole = whole();
    whole["peak"]["sites"][0]["frames"] = json!([7]);
    let report: Report = serde_json::from_value(whole).unwrap();
    assert_eq!(report.missing().as_deref(), Some("there is no frame 7"));
}

/// A reader finds each key, whether leaktap could tell its value or not; but for those that it can
/// tell of no site yet.
#[test]
fn what_is_not_known_is_null_or_empty() {
    let report = crate::formats::text::tests::report();
    let json = serde_json::to_value(&report).unwrap();
    for key in whole().as_object().unwrap().keys() {
        assert!(json.get(key).is_some(), "{key}");
    }
    let site = serde_json::to_value(Site::default()).unwrap();
    for key in whole()["sites"][0].as_object().unwrap().keys() {
        let is_left_out = NOT_YET.contains(&key.as_str()) || SOME_HAVE.contains(&key.as_str());
        assert_eq!(site.get(key).is_none(), is_left_out, "{key}");
    }
    let length = serde_json::to_string(&Site::default()).unwrap().len();
    assert!(length <= LONGEST, "{length}");
    let frame = serde_json::to_value(Frame::default()).unwrap();
    for key in whole()["frames"][0].as_object().unwrap().keys() {
        assert!(frame.get(key).is_some(), "{key}");
    }
}
