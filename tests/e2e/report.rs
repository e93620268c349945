//! The JSON report, schema 2, as a test reads it.

use std::path::Path;

use serde_json::Value;

/// One report.
#[derive(Clone, Debug)]
pub(crate) struct Report {
    json: Value,
}

/// The sums of one allocator.
#[derive(Clone, Debug)]
pub(crate) struct Family {
    /// Empty if it is the only one that was called.
    pub(crate) name: String,
    sums: Value,
}

/// One call site of a report.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    pub(crate) source: String,
    pub(crate) family: String,
    pub(crate) function: String,
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// What was allocated there in all, if that is told.
    pub(crate) allocated: Option<[u64; 2]>,
    pub(crate) frames: Vec<Frame>,
    /// Its stacks, if more than one read the same.
    alike: Vec<Stack>,
    /// All of it that does not depend on when and where the program ran.
    pub(crate) lasting: String,
}

/// One of the stacks of a site.
#[derive(Clone, Debug)]
pub(crate) struct Stack {
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Return addresses, innermost first: each physical frame once.
    pub(crate) addresses: Vec<u64>,
}

/// One frame of a stack, innermost first.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) address: u64,
    pub(crate) module: String,
    pub(crate) function: String,
    pub(crate) file: String,
    pub(crate) line: u64,
    pub(crate) inlined: bool,
}

impl Report {
    /// Reads one JSON object.
    pub(crate) fn parse(text: &str) -> Result<Report, String> {
        let json: Value = serde_json::from_str(text)
            .map_err(|error| format!("the report is no JSON: {error}"))?;
        match json["schema"].as_u64() {
            Some(2) => Ok(Report { json }),
            _ => Err(format!("schema {}, 2 expected", json["schema"])),
        }
    }

    pub(crate) fn read(path: &Path) -> Result<Report, String> {
        let mut all = Report::read_all(path)?;
        match all.len() {
            1 => Ok(all.remove(0)),
            many => Err(format!(
                "{many} reports in {}, one expected",
                path.display()
            )),
        }
    }

    /// A report a line.
    pub(crate) fn read_all(path: &Path) -> Result<Vec<Report>, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("no report in {}: {error}", path.display()))?;
        text.lines().map(Report::parse).collect()
    }

    /// The blocks whose stack begins in `function`.
    pub(crate) fn blocks_of(&self, function: &str) -> u64 {
        let is_its = |site: &Site| {
            let first = site.frames.first();
            first.is_some_and(|frame| frame.function == function)
        };
        let sites = self.sites().into_iter().filter(is_its);
        sites.map(|site| site.blocks).sum()
    }

    /// A value by JSON pointer; null if there is none.
    pub(crate) fn at(&self, pointer: &str) -> &Value {
        self.json.pointer(pointer).unwrap_or(&Value::Null)
    }

    /// One of the totals; fails the test if it is missing.
    pub(crate) fn total(&self, name: &str) -> u64 {
        let value = &self.json["totals"][name];
        value
            .as_u64()
            .unwrap_or_else(|| panic!("totals.{name} is {value} in {}", self.json["totals"]))
    }

    /// The allocators that were called, one at least.
    pub(crate) fn families(&self) -> Vec<Family> {
        let several = list(&self.json["families"]).iter().map(|json| Family {
            name: text(&json["name"]),
            sums: json.clone(),
        });
        let several: Vec<Family> = several.collect();
        match several.is_empty() {
            true => vec![Family {
                name: String::new(),
                sums: self.json["totals"].clone(),
            }],
            false => several,
        }
    }

    pub(crate) fn sites(&self) -> Vec<Site> {
        let sites = list(&self.json["sites"]).iter();
        sites.map(|site| Site::of(site, &self.json)).collect()
    }

    pub(crate) fn notes(&self) -> Vec<String> {
        list(&self.json["notes"]).iter().map(text).collect()
    }

    /// Everything but the sites, on a few lines.
    pub(crate) fn summary(&self) -> String {
        let mut rest = self.json.clone();
        without(&mut rest, &["sites", "probes", "frames", "modules"]);
        rest.to_string()
    }
}

impl Family {
    /// As [`Report::total`].
    pub(crate) fn total(&self, name: &str) -> u64 {
        let value = self.sums[name].as_u64();
        value.unwrap_or_else(|| panic!("{name} is not in {}", self.sums))
    }
}

impl Site {
    fn of(json: &Value, report: &Value) -> Site {
        let frames = entries(report, json);
        Site {
            source: text(&json["source"]),
            family: text(&json["family"]),
            function: text(&json["function"]),
            blocks: number(&json["blocks"]),
            bytes: number(&json["bytes"]),
            allocated: allocated(json),
            frames: frames
                .iter()
                .map(|frame| Frame::of(frame, report))
                .collect(),
            alike: list(&json["alike"])
                .iter()
                .map(|one| Stack::of(one, report))
                .collect(),
            lasting: lasting(json.clone(), report),
        }
    }

    /// Its stacks: one, or more that read the same.
    pub(crate) fn stacks(&self) -> Vec<Stack> {
        match self.alike.is_empty() {
            false => self.alike.clone(),
            true => vec![Stack {
                blocks: self.blocks,
                bytes: self.bytes,
                addresses: self.addresses(),
            }],
        }
    }

    /// Return addresses, innermost first: each physical frame once.
    pub(crate) fn addresses(&self) -> Vec<u64> {
        addresses(&self.frames)
    }
}

impl Stack {
    fn of(json: &Value, report: &Value) -> Stack {
        let frames = entries(report, json).into_iter();
        let frames: Vec<_> = frames.map(|frame| Frame::of(frame, report)).collect();
        Stack {
            blocks: number(&json["blocks"]),
            bytes: number(&json["bytes"]),
            addresses: addresses(&frames),
        }
    }
}

fn allocated(site: &Value) -> Option<[u64; 2]> {
    let (blocks, bytes) = (&site["allocated_blocks"], &site["allocated_bytes"]);
    Some([blocks.as_u64()?, bytes.as_u64()?])
}

fn addresses(frames: &[Frame]) -> Vec<u64> {
    let physical = frames.iter().filter(|frame| !frame.inlined);
    physical.map(|frame| frame.address).collect()
}

impl Frame {
    fn of(json: &Value, report: &Value) -> Frame {
        Frame {
            address: hexadecimal(&text(&json["address"])),
            module: text(&module_of(json, report)["path"]),
            function: text(&json["function"]),
            file: text(&json["file"]),
            line: number(&json["line"]),
            inlined: json["inlined"] == Value::Bool(true),
        }
    }
}

fn lasting(mut site: Value, report: &Value) -> String {
    // What growth there is, ages tell, and looks at moments of the trace.
    without(
        &mut site,
        &["youngest", "oldest", "growth", "series", "trend"],
    );
    if !site["culprit"].is_null() {
        let culprit = entry(report, "frames", &site["culprit"]);
        site["culprit"] = lasting_frame(culprit, report);
    }
    site["frames"] = lasting_frames(&site, report);
    for one in site
        .get_mut("alike")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        one["frames"] = lasting_frames(one, report);
    }
    site.to_string()
}

fn lasting_frames(json: &Value, report: &Value) -> Value {
    let frames = entries(report, json).into_iter();
    frames.map(|frame| lasting_frame(frame, report)).collect()
}

fn lasting_frame(frame: &Value, report: &Value) -> Value {
    let (mut frame, mut module) = (frame.clone(), module_of(frame, report));
    without(&mut frame, &["address"]);
    without(&mut module, &["base"]);
    frame["module"] = module;
    frame
}

/// The frames of a site, or of one of its stacks.
fn entries<'a>(report: &'a Value, json: &Value) -> Vec<&'a Value> {
    let ids = list(&json["frames"]).iter();
    ids.map(|id| entry(report, "frames", id)).collect()
}

/// The module of a frame; null if it is in none.
fn module_of(frame: &Value, report: &Value) -> Value {
    match &frame["module"] {
        Value::Null => Value::Null,
        id => entry(report, "modules", id).clone(),
    }
}

/// An entry of one of the report's tables; fails the test if it is missing.
fn entry<'a>(report: &'a Value, table: &str, id: &Value) -> &'a Value {
    let index = id.as_u64().and_then(|id| usize::try_from(id).ok());
    let entry = index.and_then(|index| list(&report[table]).get(index));
    entry.unwrap_or_else(|| panic!("{table} have no number {id}"))
}

fn without(json: &mut Value, names: &[&str]) {
    for name in names {
        if let Some(object) = json.as_object_mut() {
            object.remove(*name);
        }
    }
}

fn list(json: &Value) -> &[Value] {
    json.as_array().map_or(&[], Vec::as_slice)
}

fn text(json: &Value) -> String {
    json.as_str().unwrap_or_default().to_owned()
}

fn number(json: &Value) -> u64 {
    json.as_u64().unwrap_or_default()
}

/// `0x1f` as a number; 0 for anything else.
pub(crate) fn hexadecimal(text: &str) -> u64 {
    text.strip_prefix("0x")
        .and_then(|digits| u64::from_str_radix(digits, 16).ok())
        .unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A report with one heap site: `leak` (inlined into `main`) at x.c, line 2.
    pub(crate) fn sample(blocks: u64, bytes: u64) -> Report {
        let frame = |function: &str, line: u64, inlined: bool| {
            serde_json::json!({"address": "0x1234", "module": 0, "function": function,
                "file": "/src/fixtures/x.c", "line": line, "inlined": inlined})
        };
        let json = serde_json::json!({"schema": 2, "engine": "auto",
            "notes": ["3 stacks were truncated"],
            "modules": [{"path": "/x", "build_id": null, "base": "0x1000"}],
            "frames": [frame("leak", 2, true), frame("main", 9, false)],
            "totals": {"allocations": blocks, "frees": 0, "unmatched_frees": 0,
                "live_blocks": blocks, "live_bytes": bytes, "lost_events": 0},
            "sites": [{"source": "heap", "function": "malloc", "blocks": blocks, "bytes": bytes,
                "allocated_blocks": blocks, "allocated_bytes": bytes, "frames": [0, 1]}]});
        Report::parse(&json.to_string()).expect("a report")
    }

    #[test]
    fn sites_and_frames_are_read() {
        let report = sample(3, 192);
        let site = &report.sites()[0];
        assert_eq!(
            (site.blocks, site.bytes, site.function.as_str()),
            (3, 192, "malloc")
        );
        assert_eq!(site.addresses(), [0x1234]);
        assert_eq!(
            (site.frames[0].line, site.frames[0].module.as_str()),
            (2, "/x")
        );
        assert_eq!(report.total("live_bytes"), 192);
        assert!(!report.summary().contains("frames"));
    }

    #[test]
    fn another_schema_is_refused() {
        assert!(Report::parse("{\"schema\": 1}").is_err());
        assert!(Report::parse("not JSON").is_err());
    }
}
