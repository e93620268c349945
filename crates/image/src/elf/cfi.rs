use gimli::{BaseAddresses, EhFrameHdr, LittleEndian, Pointer};
use leaktap_memory::Svma;
use object::read::{CompressedData, CompressionFormat};

use super::dynamic::rest_at;
use super::header::{Header, SectionInfo};
use super::source::Source;
use super::words::{u32_at, u64_at};

/// Largest section after decompression, 1 GiB.
const LARGEST: u64 = 1 << 30;

/// Bytes that a compressed byte may stand for: deflate cannot do better (zlib.net, "Technical
/// Details").
const MOST_RATIO: u64 = 1032;

/// A section's bytes and the address they are linked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Section {
    /// Address of the first byte.
    pub svma: Svma,
    /// All of it, decompressed.
    pub bytes: Vec<u8>,
}

/// Call frame information of a file, as `leaktap_unwind` takes it.
#[derive(Clone, Debug, Default)]
pub struct Cfi {
    /// Lowest address of a loadable segment, rounded down to a page.
    pub base: Svma,
    /// `.eh_frame` (LSB, Exception Frames).
    pub eh_frame: Option<Section>,
    /// `.debug_frame` (DWARF 5, section 6.4).
    pub debug_frame: Option<Section>,
    /// Start of `.text`, which DW_EH_PE_textrel counts from.
    pub text: Option<Svma>,
    /// Start of `.got`, which DW_EH_PE_datarel counts from.
    pub got: Option<Svma>,
}

impl Cfi {
    pub(crate) fn read(header: &Header, base: Svma, source: &Source) -> Cfi {
        let at = |name| header.section(name).map(|section| Svma(section.svma));
        Cfi {
            base,
            eh_frame: named(header, source, ".eh_frame").or_else(|| by_header(header, source)),
            debug_frame: named(header, source, ".debug_frame"),
            text: at(".text"),
            got: at(".got"),
        }
    }
}

fn named(header: &Header, source: &Source, name: &str) -> Option<Section> {
    let section = header.section(name)?;
    let bytes = contents(section, source)?;
    (!bytes.is_empty()).then_some(Section {
        svma: Svma(section.svma),
        bytes,
    })
}

/// A file without section headers still has PT_GNU_EH_FRAME, which points at `.eh_frame`. Where
/// that ends is not said: a zero length ends it, at the latest its segment does.
fn by_header(header: &Header, source: &Source) -> Option<Section> {
    let range = header.eh_frame_hdr.as_ref()?;
    let bytes = rest_at(range.start, header, source)?;
    let bases = BaseAddresses::default().set_eh_frame_hdr(range.start);
    let parsed = EhFrameHdr::new(&bytes, LittleEndian)
        .parse(&bases, 8)
        .ok()?;
    let Pointer::Direct(svma) = parsed.eh_frame_ptr() else {
        return None;
    };
    Some(Section {
        svma: Svma(svma),
        bytes: rest_at(svma, header, source)?,
    })
}

/// A section's bytes, decompressed (gABI, Section Compression), or nothing if they are damaged or
/// larger than 1 GiB, or than so few bytes can stand for.
pub(crate) fn contents(section: &SectionInfo, source: &Source) -> Option<Vec<u8>> {
    let bytes = source.read(section.offset, section.size).ok()?;
    if !section.compressed {
        return Some(bytes);
    }
    let format = match u32_at(&bytes, 0)? {
        1 => CompressionFormat::Zlib,
        2 => CompressionFormat::Zstandard,
        _ => return None,
    };
    let data = bytes.get(24..)?;
    let compressed = CompressedData {
        format,
        data,
        uncompressed_size: u64_at(&bytes, 8).filter(|size| is_likely(*size, data))?,
    };
    Some(compressed.decompress().ok()?.into_owned())
}

/// The bytes of a section that is called `.zdebug_…`.
pub(crate) fn old_contents(section: &SectionInfo, source: &Source) -> Option<Vec<u8>> {
    let bytes = source.read(section.offset, section.size).ok()?;
    let (head, data) = bytes.strip_prefix(b"ZLIB")?.split_first_chunk::<8>()?;
    let compressed = CompressedData {
        format: CompressionFormat::Zlib,
        data,
        uncompressed_size: Some(u64::from_be_bytes(*head)).filter(|size| is_likely(*size, data))?,
    };
    Some(compressed.decompress().ok()?.into_owned())
}

/// Whether `size` bytes may come of `data`. All of them are allocated, and zeroed, before the first
/// is decompressed.
fn is_likely(size: u64, data: &[u8]) -> bool {
    size <= LARGEST.min(MOST_RATIO.saturating_mul(data.len() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One byte that is altered in a header of 24 made leaktap zero a GiB for each section.
    #[test]
    fn a_section_that_claims_more_than_its_bytes_can_hold_is_not_decompressed() {
        assert!(is_likely(1032, &[0]) && is_likely(0, &[]));
        assert!(!is_likely(1033, &[0]) && !is_likely(1 << 30, &[0; 1000]));
        assert!(!is_likely(u64::MAX, &vec![0; 1 << 21]));
    }
}
