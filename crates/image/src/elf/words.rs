//! Records, little-endian numbers and strings in bytes that nobody vouches for.

use object::pod::{Pod, from_bytes, slice_from_bytes};

/// Longer than the names of allocation functions and of versions.
const LONGEST_NAME: usize = 1 << 10;

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(array_at(bytes, at)?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(array_at(bytes, at)?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(array_at(bytes, at)?))
}

/// The string at `at`, without its terminating zero.
pub(crate) fn string_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    let len = rest.iter().position(|&byte| byte == 0)?;
    rest.get(..len)
}

/// The same, if it is no longer than a name that anybody looks for. Entries of a few bytes may all
/// name one string, as long as the file.
pub(crate) fn short_string_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let rest = bytes.get(at..)?;
    string_at(rest.get(..LONGEST_NAME).unwrap_or(rest), 0)
}

/// All whole records of which `bytes` are an array.
pub(crate) fn records<T: Pod>(bytes: &[u8]) -> &[T] {
    let whole = slice_from_bytes(bytes, bytes.len() / size_of::<T>());
    whole.map_or(&[], |(records, _)| records)
}

/// The record at `at`.
pub(crate) fn record_at<T: Pod>(bytes: &[u8], at: usize) -> Option<&T> {
    let (record, _) = from_bytes(bytes.get(at..)?).ok()?;
    Some(record)
}

fn array_at<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..at.checked_add(N)?)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_string_is_none_where_a_short_one_is_asked_for() {
        let mut strings = vec![b'x'; 3 * LONGEST_NAME];
        strings.push(0);
        assert_eq!(short_string_at(&strings, 0), None);
        let short = &strings[2 * LONGEST_NAME + 1..3 * LONGEST_NAME];
        assert_eq!(short_string_at(&strings, 2 * LONGEST_NAME + 1), Some(short));
        assert_eq!(short_string_at(&strings, strings.len() + 1), None);
    }
}
