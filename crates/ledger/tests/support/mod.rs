//! An empty ledger, in memory that Miri knows.

use std::alloc::{Layout, alloc_zeroed};

use leaktap_ledger::{Ledger, reserved};

const PAGE: usize = 4096;

/// A ledger of `tables` tables. Leaked.
pub(crate) fn ledger(tables: u32) -> Ledger<'static> {
    // Aligned by hand: of an allocator that is asked for a page, zeroed memory is not sparse.
    let layout = Layout::from_size_align(reserved(tables) + PAGE, 16).unwrap();
    // SAFETY: new, zeroed memory, as long behind the next page's start as `reserved` says, and
    // never freed.
    unsafe {
        let memory = alloc_zeroed(layout);
        Ledger::at(memory.add(memory.align_offset(PAGE)), tables)
    }
}
