//! Frames that belong to allocation itself rather than to whoever wanted memory.

use crate::{Frame, Place};

/// Functions that only pass a request on to malloc, by the beginning of their demangled names.
const PASS_ON: &[&str] = &[
    "operator new",
    "std::__new_allocator<",
    "__gnu_cxx::new_allocator<",
    "std::allocator_traits<std::allocator<",
    "std::allocator<",
    "__gnu_cxx::__alloc_traits<",
    "std::__detail::_Hashtable_alloc<",
    // libc++
    "std::__1::allocator<",
    "std::__1::allocator_traits<std::__1::allocator<",
    "std::__1::__libcpp_allocate",
    "std::__1::__libcpp_operator_new",
    "__rust_alloc",
    "__rust_realloc",
    "__rust_alloc_zeroed",
    "__rustc[",
    "__rustc::",
    "__rdl_alloc",
    "__rdl_realloc",
    "__rg_alloc",
    "alloc::alloc::",
    "alloc::boxed::box_new_uninit",
    "alloc::raw_vec::",
    "<alloc::raw_vec::",
    "<alloc::alloc::Global",
    "std::alloc::",
    "std::sys::alloc::",
    "<std::alloc::System",
    "core::alloc::",
];

/// Source files of Rust's library that do nothing else: inlined functions may have short names.
const PASS_ON_FILES: &[&str] = &[
    "/library/alloc/src/alloc.rs",
    "/library/alloc/src/raw_vec/mod.rs",
    "/library/alloc/src/raw_vec.rs",
];

/// The index of the innermost frame outside of the allocator: 0 where all are inside.
pub fn caller_of_allocator(frames: &[Place<'_>]) -> usize {
    let passes_on = |frame: &Frame| {
        let name = frame.function.as_deref().unwrap_or_default();
        let file = frame.file.as_deref().unwrap_or_default();
        PASS_ON.iter().any(|start| name.starts_with(start))
            || PASS_ON_FILES.iter().any(|end| file.ends_with(end))
    };
    frames
        .iter()
        .position(|place| !passes_on(place.frame))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(names: &[&str]) -> Vec<Frame> {
        let frame = |name: &&str| Frame {
            function: Some((*name).to_owned()),
            ..Frame::default()
        };
        names.iter().map(frame).collect()
    }

    #[test]
    fn drops_what_only_passes_on() {
        let cases: [(&[&str], usize); 8] = [
            (&["main"], 0),
            (&["operator new(unsigned long)", "make()"], 1),
            (
                &[
                    "std::__new_allocator<int>::allocate(unsigned long, void const*)",
                    "f",
                ],
                1,
            ),
            (
                &[
                    "std::sys::alloc::unix::alloc",
                    "__rdl_alloc",
                    "alloc::alloc::alloc",
                    "f",
                ],
                3,
            ),
            (
                &[
                    "<alloc::raw_vec::RawVecInner>::try_allocate_in",
                    "alloc::raw_vec::RawVec<T,A>::with_capacity_in",
                    "alloc::vec::Vec<T,A>::with_capacity_in",
                ],
                2,
            ),
            (
                &["alloc::boxed::box_new_uninit", "alloc::boxed::Box<T>::new"],
                1,
            ),
            (&["strdup", "main"], 0),
            (&["operator new(unsigned long)"], 0),
        ];
        for (names, expected) in cases {
            let frames = frames(names);
            let module = None;
            let places: Vec<_> = frames.iter().map(|frame| Place { frame, module }).collect();
            assert_eq!(caller_of_allocator(&places), expected, "{names:?}");
        }
        assert_eq!(caller_of_allocator(&[]), 0);
    }
}
