//! What is loaded in a process: its mappings, its modules, their symbols, call frame information,
//! and the files that have their debug information.
//!
//! In the data path it comes before the first probe, where it says where `malloc` is and hands over
//! what `unwind` needs; at the end `symbols` reads the same files for names. It reads `/proc` and
//! ELF files, and memory through [`leaktap_memory::ReadMemory`]; it knows no ptrace and never
//! writes.
//!
//! Mappings, link maps and files belong to the target: nothing in them is trusted, and what cannot
//! be used is data ([`Skipped`], an absent section), not the end of a session.
#![deny(unsafe_code)]

mod auxv;
mod bindings;
mod debug_file;
mod elf;
mod elsewhere;
mod error;
mod files;
mod follow;
mod image;
mod link_map;
mod listing;
mod maps;
mod module;
mod patience;
mod resolve;
mod scan;
mod scope;
mod source_text;
mod thread;
mod usage;
mod vdso;

pub use auxv::hwcap2;
pub use bindings::{Bindings, Bound};
pub use elf::{Cfi, ElfFile, Reference, Section, Segment, Slot, Symbol};
pub use elsewhere::Elsewhere;
pub use error::Error;
pub use files::FileCache;
pub use follow::Glance;
pub use image::{Changes, Image, Moves};
pub use link_map::{Link, LinkState, RDebug};
pub use maps::{Kind, Mapping, Perms, mappings, mappings_in};
pub use module::{Key, Module};
pub use resolve::{Code, Resolved};
pub use scan::Skipped;
pub use source_text::SourceText;
pub use usage::{in_use, touched};
