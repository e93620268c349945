//! Pointers into blocks that are as good as pointers to them: memcheck's `--leak-check-heuristics`
//! (Valgrind User Manual, 4.3).

use leaktap_memory::{Addr, ReadMemory};

use super::Parts;

const WORD: u64 = 8;

/// Words of a table of virtual functions that are looked at.
const TABLE: u64 = 4;

/// Whether a pointer `offset` bytes into the block of `len` bytes at `start` is as good as one to
/// its start. `parts` tells what may be at an address.
pub(super) fn is_start(
    (start, len): (u64, u64),
    offset: u64,
    memory: &impl ReadMemory,
    parts: &Parts<impl Fn(u64) -> bool, impl Fn(u64) -> bool>,
) -> bool {
    let word = |at: u64| memory.read_u64(Addr::new(at)).ok();
    let Some(first) = word(start).filter(|_| offset.is_multiple_of(WORD)) else {
        return false;
    };
    let is_behind = match offset {
        WORD => is_length(first, len) || is_count(first, len),
        _ if offset == 3 * WORD => is_string(first, word(start.wrapping_add(WORD)), len),
        _ => false,
    };
    let base = || word(start.wrapping_add(offset));
    is_behind
        || is_table(first, word, parts) && base().is_some_and(|base| is_table(base, word, parts))
}

/// `length64`: the size of the rest.
fn is_length(first: u64, len: u64) -> bool {
    len.checked_sub(WORD) == Some(first)
}

/// `newarray`: how many elements with destructors follow, all of one size.
fn is_count(first: u64, len: u64) -> bool {
    let bytes = len.saturating_sub(WORD);
    first > 0 && first <= bytes && bytes.is_multiple_of(first)
}

/// `stdstring`: length, capacity and count of references come before the characters and their end,
/// in GCC's strings before C++11.
fn is_string(length: u64, capacity: Option<u64>, len: u64) -> bool {
    capacity.is_some_and(|capacity| {
        length <= capacity && len.checked_sub(3 * WORD + 1) == Some(capacity)
    })
}

/// `multipleinheritance`: a table of virtual functions, of the object and of a base class in it.
fn is_table(
    at: u64,
    word: impl Fn(u64) -> Option<u64>,
    parts: &Parts<impl Fn(u64) -> bool, impl Fn(u64) -> bool>,
) -> bool {
    at.is_multiple_of(WORD)
        && (parts.is_constant)(at)
        && (0..TABLE).any(|index| word(at.wrapping_add(index * WORD)).is_some_and(&parts.is_code))
}
