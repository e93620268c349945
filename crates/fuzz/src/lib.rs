//! Feeds leaktap's parsers inputs that nobody would make.
//!
//! Beside the data path, for tests alone: a [`Subject`] is one parser of what a target or a file
//! says. It takes any bytes, and says whether they got through to the parser proper. Three drivers
//! use the subjects: the tests of this crate (a few thousand inputs each, on any toolchain), the
//! program of this crate (millions), and the cargo-fuzz targets in `fuzz/` (guided by coverage).
//!
//! Inputs are made from stored ones, in `fuzz/corpus`, by mutations that know the format.
#![forbid(unsafe_code)]

mod capture;
mod cfi;
mod drive;
mod elf;
mod link_map;
mod maps;
mod random;
mod shared;

pub use drive::{Sum, corpus, drive};
pub use random::Random;

/// A parser, and how to make inputs for it.
#[derive(Clone, Copy, Debug)]
pub struct Subject {
    /// As its corpus and its cargo-fuzz target are called.
    pub name: &'static str,
    /// Parses an input. True if that got past the first look at it.
    pub parse: fn(&[u8]) -> bool,
    /// Changes an input a little, and keeps most of its form.
    pub mutate: fn(&mut Vec<u8>, &mut Random),
}

/// ELF files: headers, symbols, relocations, call frame information, lines.
pub const ELF: Subject = Subject {
    name: "elf",
    parse: elf::parse,
    mutate: elf::mutate,
};

/// Call frame information to rows, and walks by these rows.
pub const CFI: Subject = Subject {
    name: "cfi",
    parse: cfi::parse,
    mutate: cfi::mutate,
};

/// The dynamic linker's lists, in a target's memory.
pub const LINK_MAP: Subject = Subject {
    name: "link_map",
    parse: link_map::parse,
    mutate: link_map::mutate,
};

/// `/proc/PID/maps`.
pub const MAPS: Subject = Subject {
    name: "maps",
    parse: maps::parse,
    mutate: maps::mutate,
};

/// Captures and JSON reports.
pub const CAPTURE: Subject = Subject {
    name: "capture",
    parse: capture::parse,
    mutate: capture::mutate,
};

/// What a target writes into the memory that it shares with the tracer.
pub const SHARED: Subject = Subject {
    name: "shared",
    parse: shared::parse,
    mutate: shared::mutate,
};

/// All of them.
pub const SUBJECTS: [Subject; 6] = [ELF, CFI, LINK_MAP, MAPS, CAPTURE, SHARED];
