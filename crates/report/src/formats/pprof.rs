//! A heap profile for `go tool pprof` and all that reads such: gzip, and in it the `Profile` of
//! github.com/google/pprof's proto/profile.proto.
//!
//! Addresses are those of the modules' files, and mappings have no range, which pprof takes to mean
//! just that: captures of two runs agree, wherever their modules were.

mod tables;
mod wire;

use std::io::{self, Write};

use flate2::Compression;
use flate2::write::GzEncoder;
use jiff::Timestamp;

use self::tables::Tables;
use self::wire::Message;
use super::frames::processes;
use super::text::amount_suppressed;
use crate::{Format, Growth, Report, Site, Source};

/// Live blocks and their bytes by stack; also all that was allocated, where that is known.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pprof<'a> {
    /// The processes that the report sums up, if there are several.
    pub of: &'a [Report],
}

/// Numbers of the fields of a `Profile`.
mod profile {
    pub(super) const SAMPLE_TYPE: u64 = 1;
    pub(super) const SAMPLE: u64 = 2;
    pub(super) const MAPPING: u64 = 3;
    pub(super) const LOCATION: u64 = 4;
    pub(super) const FUNCTION: u64 = 5;
    pub(super) const STRING_TABLE: u64 = 6;
    pub(super) const TIME_NANOS: u64 = 9;
    pub(super) const DURATION_NANOS: u64 = 10;
    pub(super) const PERIOD_TYPE: u64 = 11;
    pub(super) const PERIOD: u64 = 12;
    pub(super) const COMMENT: u64 = 13;
    pub(super) const DEFAULT_SAMPLE_TYPE: u64 = 14;
}

impl Format for Pprof<'_> {
    fn write(&self, reports: &[Report], out: &mut dyn Write) -> io::Result<()> {
        let mut gzip = GzEncoder::new(out, Compression::fast());
        for report in reports {
            gzip.write_all(&Profile::new(report, self.of).write())?;
        }
        gzip.finish().map(drop)
    }
}

/// What is written of one report.
struct Profile<'a> {
    report: &'a Report,
    of: &'a [Report],
    tables: Tables<'a>,
    message: Message,
    /// How many allocations of each site there were is known, too.
    has_allocated: bool,
}

impl<'a> Profile<'a> {
    fn new(report: &'a Report, of: &'a [Report]) -> Profile<'a> {
        let is_known =
            |site: &Site| site.allocated_blocks.is_some() && site.allocated_bytes.is_some();
        Profile {
            report,
            of,
            tables: Tables::new(report),
            message: Message::default(),
            has_allocated: !report.sites.is_empty() && report.sites.iter().all(is_known),
        }
    }

    fn write(mut self) -> Vec<u8> {
        self.types();
        for site in &self.report.sites {
            self.sample(site);
        }
        self.others();
        self.when();
        self.tables.write(&mut self.message);
        self.message.into_bytes()
    }

    fn types(&mut self) {
        let allocated = [("alloc_objects", "count"), ("alloc_space", "bytes")];
        let in_use = [("inuse_objects", "count"), ("inuse_space", "bytes")];
        let has_allocated = self.has_allocated;
        let allocated = allocated.iter().filter(|_| has_allocated);
        for &(of, unit) in allocated.chain(&in_use) {
            let kind = self.value_type(of, unit);
            self.message.message(profile::SAMPLE_TYPE, &kind);
        }
        let space = self.value_type("space", "bytes");
        self.message.message(profile::PERIOD_TYPE, &space);
        // Each block counts as itself.
        self.message.number(profile::PERIOD, 1);
        let default = self.tables.text("inuse_space");
        self.message.number(profile::DEFAULT_SAMPLE_TYPE, default);
    }

    fn value_type(&mut self, of: &str, unit: &str) -> Message {
        let mut message = Message::default();
        message.number(1, self.tables.text(of));
        message.number(2, self.tables.text(unit));
        message
    }

    fn sample(&mut self, site: &'a Site) {
        let allocated = [site.allocated_blocks, site.allocated_bytes];
        let allocated = allocated.into_iter().flatten();
        let has_allocated = self.has_allocated;
        let allocated = allocated.filter(|_| has_allocated);
        let values: Vec<_> = allocated.chain([site.blocks, site.bytes]).collect();
        let locations = self.tables.locations(site);
        let mut sample = Message::default();
        sample.numbers(1, &locations);
        sample.numbers(2, &values.into_iter().map(signed).collect::<Vec<_>>());
        for label in self.labels(site) {
            sample.message(3, &label);
        }
        self.message.message(profile::SAMPLE, &sample);
    }

    /// What the stacks that keep nothing have allocated: they are no sites.
    fn others(&mut self) {
        if !self.has_allocated || !self.report.families.is_empty() {
            return;
        }
        let all = &self.report.totals.heap;
        let sites = || self.report.sites.iter();
        let listed = |of: fn(&Site) -> Option<u64>| {
            let known = sites()
                .filter(|site| site.source == Source::Heap)
                .filter_map(of);
            known.fold(0, u64::saturating_add)
        };
        let blocks = listed(|site| site.allocated_blocks);
        let bytes = listed(|site| site.allocated_bytes);
        let (blocks, bytes) = (
            all.allocations.saturating_sub(blocks),
            all.allocated_bytes.saturating_sub(bytes),
        );
        if blocks > 0 {
            let location = self.tables.pseudo("[other stacks]");
            let mut sample = Message::default();
            sample.numbers(1, &[location]);
            sample.numbers(2, &[signed(blocks), signed(bytes), 0, 0]);
            self.message.message(profile::SAMPLE, &sample);
        }
    }

    /// What is known of a site's blocks.
    fn labels(&mut self, site: &'a Site) -> Vec<Message> {
        let size = match site.blocks {
            1 => Some(site.bytes),
            _ => site.shape.as_ref().map(|shape| shape.size),
        };
        let milliseconds = |seconds: f64| (seconds * 1000.0) as u64;
        let source = (site.source == Source::Mapping).then_some("mapping");
        let growth = site.growth.as_ref().and_then(Growth::word);
        let texts = [
            ("kind", Some(site.kind.name())),
            ("source", source),
            ("family", site.family.as_deref()),
            ("function", Some(&*site.function)),
            ("course", growth),
            ("truncated", site.truncated.as_deref()),
        ];
        let numbers = [
            ("bytes", size, "bytes"),
            (
                "youngest",
                Some(milliseconds(site.youngest)),
                "milliseconds",
            ),
            ("oldest", Some(milliseconds(site.oldest)), "milliseconds"),
        ];
        let texts = texts
            .into_iter()
            .filter_map(|(key, text)| Some((key, text?)));
        let texts = texts.map(|(key, text)| {
            let mut label = Message::default();
            label.number(1, self.tables.text(key));
            label.number(2, self.tables.text(text));
            label
        });
        let mut labels: Vec<_> = texts.collect();
        for (key, number, unit) in numbers {
            let Some(number) = number else { continue };
            let mut label = Message::default();
            label.number(1, self.tables.text(key));
            label.number(3, signed(number));
            label.number(4, self.tables.text(unit));
            labels.push(label);
        }
        labels
    }

    /// When and of what.
    fn when(&mut self) {
        let of = match self.of {
            [] => std::slice::from_ref(self.report),
            several => several,
        };
        let comment = format!("leaktap {}: {}", self.report.leaktap, processes(of));
        let suppressed = amount_suppressed(self.report);
        let suppressed = suppressed.map(|amount| format!("suppressed: {amount}"));
        for comment in [Some(comment), suppressed].into_iter().flatten() {
            let comment = self.tables.text(&comment);
            self.message.number(profile::COMMENT, comment);
        }
        let nanoseconds = self.report.duration * 1e9;
        self.message
            .number(profile::DURATION_NANOS, nanoseconds as u64);
        let begun = self.report.started.parse::<Timestamp>();
        let begun = begun.ok().map(Timestamp::as_nanosecond);
        if let Some(begun) = begun.and_then(|begun| u64::try_from(begun).ok()) {
            self.message.number(profile::TIME_NANOS, begun);
        }
    }
}

/// pprof's numbers have a sign.
fn signed(value: u64) -> u64 {
    value.min(i64::MAX as u64)
}
