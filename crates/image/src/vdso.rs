//! The kernel's code in every process, vdso(7): an ELF file that exists in memory only.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use leaktap_memory::ReadMemory;

use crate::maps::Mapping;
use crate::module::{self, Module};
use crate::{ElfFile, Error};

/// It is one or two pages.
const LARGEST: u64 = 1 << 20;

pub(crate) fn module(
    mapping: &Mapping,
    memory: &dyn ReadMemory,
    maps: &[Mapping],
) -> Result<Module, Error> {
    let path = Path::new("[vdso]");
    let len = usize::try_from(mapping.len().min(LARGEST)).unwrap_or(0);
    let mut bytes = vec![0; len];
    memory
        .read(mapping.start, &mut bytes)
        .map_err(|source| Error::Read {
            what: path.to_path_buf(),
            source: std::io::Error::other(source),
        })?;
    let file = Arc::new(ElfFile::from_bytes(path, bytes)?);
    let bias = module::bias(&file, mapping).ok_or_else(|| Error::NoSegment {
        path: PathBuf::from(path),
        offset: mapping.offset,
    })?;
    Module::of(mapping, file, bias, maps)
}
