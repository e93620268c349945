//! Memory for the way out, when there is none left.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicPtr};

/// A block of the reserve: small enough that malloc(3) takes it from its heap and puts it back
/// there. With a limit far below what is mapped (RLIMIT_AS), nothing new can be mapped, a megabyte
/// that was just unmapped neither.
const BLOCK: Layout = Layout::new::<[u64; 2048]>();

/// How many are set aside: 4 MiB in all.
const BLOCKS: usize = 256;

/// The system's allocator, with a reserve. A tracer that aborts because no memory is left kills its
/// target; this one can let it go first: it asks [`has_run_out`], and ends.
#[derive(Debug)]
pub struct Reserve;

/// The blocks that are set aside: the first, whose first word is the address of the next.
static FIRST: AtomicPtr<u8> = AtomicPtr::new(ptr::null_mut());

static HAS_RUN_OUT: AtomicBool = AtomicBool::new(false);

/// Sets the reserve aside. To be called once, before there are other threads.
pub fn set_aside() {
    for _ in 0..BLOCKS {
        // SAFETY: of a size; what is returned has room for a pointer.
        unsafe {
            let block = System.alloc(BLOCK);
            if block.is_null() {
                return;
            }
            block.cast::<*mut u8>().write(FIRST.load(Acquire));
            FIRST.store(block, Release);
        }
    }
}

/// Whether the reserve had to be used.
pub fn has_run_out() -> bool {
    HAS_RUN_OUT.load(Acquire)
}

/// Gives the reserve back to the system's allocator. False if there is none.
fn give_back() -> bool {
    let mut block = FIRST.swap(ptr::null_mut(), AcqRel);
    let is_there = !block.is_null();
    while !block.is_null() {
        // SAFETY: allocated and written by `set_aside`, and ours alone since the exchange.
        unsafe {
            let next = block.cast::<*mut u8>().read();
            System.dealloc(block, BLOCK);
            block = next;
        }
    }
    if is_there {
        HAS_RUN_OUT.store(true, Release);
    }
    is_there
}

/// What `allocate` returns, a second time if the reserve has to be given back for it.
fn or_of_reserve(allocate: impl Fn() -> *mut u8) -> *mut u8 {
    let allocated = allocate();
    match allocated.is_null() && give_back() {
        true => allocate(),
        false => allocated,
    }
}

// SAFETY: all memory is the system allocator's, which keeps the rules.
unsafe impl GlobalAlloc for Reserve {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        or_of_reserve(|| unsafe { System.alloc(layout) })
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as the caller says.
        or_of_reserve(|| unsafe { System.alloc_zeroed(layout) })
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(block, layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as the caller says; one that fails leaves the block as it was.
        or_of_reserve(|| unsafe { System.realloc(block, layout, size) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// The allocator of this test program is another one: these are blocks of nobody else's.
    #[test]
    fn the_reserve_is_given_back_once_and_that_is_known() {
        set_aside();
        let asked = Cell::new(0);
        let in_vain = || {
            asked.set(asked.get() + 1);
            ptr::null_mut()
        };
        assert!(!has_run_out());
        assert!(or_of_reserve(in_vain).is_null() && has_run_out());
        assert_eq!(asked.get(), 2, "before and after it is given back");
        assert!(or_of_reserve(in_vain).is_null());
        assert_eq!(asked.get(), 3, "there is none any more");
    }
}
