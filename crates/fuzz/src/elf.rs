//! ELF files, asked all that leaktap asks of one.

use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use leaktap_image::ElfFile;
use leaktap_memory::Svma;
use leaktap_symbols::Resolver;

use crate::Random;

/// Functions of a file that are looked at more closely.
const SOME: usize = 4;

pub(crate) fn parse(bytes: &[u8]) -> bool {
    let Ok(file) = ElfFile::from_bytes(Path::new("fuzzed"), bytes.to_vec()) else {
        return false;
    };
    let file = Arc::new(file);
    let cfi = file.cfi();
    let names = file.function_names();
    let mut resolver = Resolver::new();
    let mut addresses = vec![Svma(0), file.entry(), file.base(), Svma(u64::MAX)];
    for name in names.iter().map(String::as_str).take(SOME) {
        let _ = (file.references(name), file.objects(name));
        for function in file.functions(name) {
            let _ = file.ifunc_slots(function.svma);
            let _ = file.bytes_at(function.svma, 16);
            addresses.push(Svma(function.svma.0.saturating_add(function.size / 2)));
        }
    }
    for at in addresses.into_iter().take(4 * SOME) {
        let _ = file.symbol_at(at);
        assert!(!resolver.names(&file, at).is_empty());
    }
    !names.is_empty() || cfi.eh_frame.is_some()
}

pub(crate) fn mutate(file: &mut Vec<u8>, random: &mut Random) {
    let part = part(file, random).unwrap_or(0..file.len());
    match random.one_in(3) {
        // Numbers all over the part, in place.
        true if !part.is_empty() && part.end <= file.len() => {
            let at = random.within(part);
            random.put(file, at);
        }
        _ => random.damage(file, part),
    }
}

/// A header, a table of headers, or the contents of a section, each as likely as another.
fn part(file: &[u8], random: &mut Random) -> Option<Range<usize>> {
    let sections = table(file, 40, 60, 64)?;
    match random.below(16) {
        0 => Some(16..64),
        1 | 2 => table(file, 32, 56, 56),
        3..6 => Some(sections),
        6 => None,
        _ => {
            let header = 64 * random.below(sections.len() / 64);
            let header = file.get(sections.start.checked_add(header)?..)?;
            let start = number(header, 24, 8)?;
            Some(start..start.checked_add(number(header, 32, 8)?)?)
        }
    }
}

/// The table whose offset and number of entries are at these places of the ELF header.
fn table(file: &[u8], offset: usize, count: usize, entry: usize) -> Option<Range<usize>> {
    let start = number(file, offset, 8)?;
    Some(start..start.checked_add(entry * number(file, count, 2)?)?)
}

fn number(file: &[u8], at: usize, len: usize) -> Option<usize> {
    let mut word = [0; 8];
    word.get_mut(..len)?
        .copy_from_slice(file.get(at..at.checked_add(len)?)?);
    usize::try_from(u64::from_le_bytes(word)).ok()
}
