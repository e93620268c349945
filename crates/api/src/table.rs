//! Names, and what they do. Sources: malloc(3), posix_memalign(3), C23 7.24.3; the Itanium C++
//! ABI's names of the replaceable operators; jemalloc(3); `gperftools/tcmalloc.h`; `mimalloc.h` 2
//! and 3; Firefox's `mozmemory.h`.

use crate::Action;

const fn allocate(arguments: u32) -> Action {
    Action::ALLOCATE.sized(0).takes(arguments)
}

/// memalign(3) and its kin: the size comes second.
const ALIGNED: Action = Action::ALLOCATE.sized(1).takes(2);
const CALLOC: Action = Action::ALLOCATE.product(0, 1).takes(2);

const fn calloc(arguments: u32) -> Action {
    CALLOC.takes(arguments)
}

const fn realloc(arguments: u32) -> Action {
    Action::REALLOCATE.sized(1).takes(arguments)
}

const fn recalloc(arguments: u32) -> Action {
    Action::REALLOCATE.product(1, 2).takes(arguments)
}

const fn free(arguments: u32) -> Action {
    Action::FREE.takes(arguments)
}

/// (symbol, how people write it or nothing, what it does).
type Known = (&'static str, &'static str, Action);

const NEW: &str = "operator new";
const NEW_ARRAY: &str = "operator new[]";
const DELETE: &str = "operator delete";
const DELETE_ARRAY: &str = "operator delete[]";

/// What is looked for, in this order.
pub(crate) const STANDARD: &[Known] = &[
    ("malloc", "", allocate(1)),
    ("calloc", "", CALLOC),
    ("realloc", "", realloc(2)),
    ("reallocarray", "", recalloc(3)),
    ("free", "", free(1)),
    ("cfree", "", free(1)),
    ("free_sized", "", free(2)),
    ("free_aligned_sized", "", free(3)),
    ("memalign", "", ALIGNED),
    ("aligned_alloc", "", ALIGNED),
    (
        "posix_memalign",
        "",
        Action::ALLOCATE_INTO.sized(2).takes(3),
    ),
    ("valloc", "", allocate(1)),
    ("pvalloc", "", allocate(1)),
    ("_Znwm", NEW, allocate(1).throwing()),
    ("_Znam", NEW_ARRAY, allocate(1).throwing()),
    ("_ZnwmRKSt9nothrow_t", NEW, allocate(2)),
    ("_ZnamRKSt9nothrow_t", NEW_ARRAY, allocate(2)),
    ("_ZnwmSt11align_val_t", NEW, allocate(2).throwing()),
    ("_ZnamSt11align_val_t", NEW_ARRAY, allocate(2).throwing()),
    ("_ZnwmSt11align_val_tRKSt9nothrow_t", NEW, allocate(3)),
    ("_ZnamSt11align_val_tRKSt9nothrow_t", NEW_ARRAY, allocate(3)),
    ("_ZdlPv", DELETE, free(1)),
    ("_ZdaPv", DELETE_ARRAY, free(1)),
    ("_ZdlPvm", DELETE, free(2)),
    ("_ZdaPvm", DELETE_ARRAY, free(2)),
    ("_ZdlPvRKSt9nothrow_t", DELETE, free(2)),
    ("_ZdaPvRKSt9nothrow_t", DELETE_ARRAY, free(2)),
    ("_ZdlPvSt11align_val_t", DELETE, free(2)),
    ("_ZdaPvSt11align_val_t", DELETE_ARRAY, free(2)),
    ("_ZdlPvmSt11align_val_t", DELETE, free(3)),
    ("_ZdaPvmSt11align_val_t", DELETE_ARRAY, free(3)),
    ("_ZdlPvSt11align_val_tRKSt9nothrow_t", DELETE, free(3)),
    ("_ZdaPvSt11align_val_tRKSt9nothrow_t", DELETE_ARRAY, free(3)),
    ("mallocx", "", allocate(2)),
    ("rallocx", "", realloc(3)),
    ("xallocx", "", Action::RESIZE.sized(1).takes(4)),
    ("dallocx", "", free(2)),
    ("sdallocx", "", free(3)),
    ("mmap", "", Action::MAP.takes(6)),
    ("mmap64", "", Action::MAP.takes(6)),
    ("munmap", "", Action::UNMAP.takes(2)),
    ("mremap", "", Action::REMAP.takes(5)),
    ("brk", "", Action::SET_BREAK.takes(1)),
    ("sbrk", "", Action::MOVE_BREAK.takes(1)),
    ("mprotect", "", Action::PROTECT.takes(3)),
    ("madvise", "", Action::GIVE_BACK.takes(3)),
    ("mlockall", "", Action::LOCK.takes(1)),
    ("_dl_debug_state", "", Action::CHANGE_MODULES),
];

/// What an allocator has under names of its own.
pub(crate) struct Prefixed {
    pub(crate) prefix: &'static str,
    /// Of [`STANDARD`].
    pub(crate) standard: &'static [&'static str],
    /// (name behind the prefix, what it does).
    pub(crate) more: &'static [(&'static str, Action)],
}

const JEMALLOC: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "free",
    "free_sized",
    "free_aligned_sized",
    "memalign",
    "aligned_alloc",
    "posix_memalign",
    "valloc",
    "pvalloc",
    "mallocx",
    "rallocx",
    "xallocx",
    "dallocx",
    "sdallocx",
];

pub(crate) const PREFIXED: &[Prefixed] = &[
    Prefixed {
        prefix: "__libc_",
        standard: &[
            "malloc",
            "calloc",
            "realloc",
            "reallocarray",
            "free",
            "cfree",
            "memalign",
            "valloc",
            "pvalloc",
        ],
        more: &[],
    },
    Prefixed {
        prefix: "__",
        standard: &["posix_memalign"],
        more: &[],
    },
    Prefixed {
        prefix: "je_",
        standard: JEMALLOC,
        more: &[],
    },
    Prefixed {
        prefix: "_rjem_",
        standard: JEMALLOC,
        more: &[],
    },
    Prefixed {
        prefix: "tc_",
        standard: &[
            "malloc",
            "calloc",
            "realloc",
            "free",
            "cfree",
            "free_sized",
            "memalign",
            "posix_memalign",
            "valloc",
            "pvalloc",
        ],
        more: TCMALLOC,
    },
    Prefixed {
        prefix: "mi_",
        standard: &[
            "malloc",
            "calloc",
            "realloc",
            "reallocarray",
            "free",
            "cfree",
            "memalign",
            "aligned_alloc",
            "posix_memalign",
            "valloc",
            "pvalloc",
        ],
        more: MIMALLOC,
    },
    Prefixed {
        prefix: "mi_",
        standard: &[],
        more: OF_HEAP,
    },
];

/// Forms of functions that take a heap, or an arena, first, by their prefix.
pub(crate) const SHIFTED: &[(&str, &[(&str, Action)])] = &[
    (
        "mi_heap_",
        &[
            ("malloc", allocate(1)),
            ("calloc", CALLOC),
            ("realloc", realloc(2)),
            ("alloc_new", allocate(1).throwing()),
            ("alloc_new_n", CALLOC.throwing()),
        ],
    ),
    ("mi_heap_", OF_HEAP),
    (
        "moz_arena_",
        &[
            ("malloc", allocate(1)),
            ("calloc", CALLOC),
            ("realloc", realloc(2)),
            ("memalign", ALIGNED),
            ("free", free(1)),
        ],
    ),
];

const TCMALLOC: &[(&str, Action)] = &[
    ("malloc_skip_new_handler", allocate(1)),
    ("new", allocate(1).throwing()),
    ("newarray", allocate(1).throwing()),
    ("new_nothrow", allocate(2)),
    ("newarray_nothrow", allocate(2)),
    ("new_aligned", allocate(2).throwing()),
    ("newarray_aligned", allocate(2).throwing()),
    ("new_aligned_nothrow", allocate(3)),
    ("newarray_aligned_nothrow", allocate(3)),
    ("delete", free(1)),
    ("deletearray", free(1)),
    ("delete_sized", free(2)),
    ("deletearray_sized", free(2)),
    ("delete_nothrow", free(2)),
    ("deletearray_nothrow", free(2)),
    ("delete_aligned", free(2)),
    ("deletearray_aligned", free(2)),
    ("delete_sized_aligned", free(3)),
    ("deletearray_sized_aligned", free(3)),
    ("delete_aligned_nothrow", free(3)),
    ("deletearray_aligned_nothrow", free(3)),
];

const MIMALLOC: &[(&str, Action)] = &[
    ("zalloc_small", allocate(1)),
    ("expand", realloc(2)),
    ("aligned_recalloc", recalloc(4)),
    ("aligned_offset_recalloc", recalloc(5)),
    ("new", allocate(1).throwing()),
    ("new_nothrow", allocate(1)),
    ("new_aligned", allocate(2).throwing()),
    ("new_aligned_nothrow", allocate(2)),
    ("new_n", CALLOC.throwing()),
    ("new_realloc", realloc(2).throwing()),
    ("new_reallocn", recalloc(3).throwing()),
    ("free_size", free(2)),
    ("free_aligned", free(2)),
    ("free_size_aligned", free(3)),
];

/// Functions of mimalloc's that there are with a heap, too.
const OF_HEAP: &[(&str, Action)] = &[
    ("zalloc", allocate(1)),
    ("malloc_small", allocate(1)),
    ("mallocn", CALLOC),
    ("reallocn", recalloc(3)),
    ("reallocf", realloc(2).freeing_on_failure()),
    ("rezalloc", realloc(2)),
    ("recalloc", recalloc(3)),
    ("malloc_aligned", allocate(2)),
    ("malloc_aligned_at", allocate(3)),
    ("zalloc_aligned", allocate(2)),
    ("zalloc_aligned_at", allocate(3)),
    ("calloc_aligned", calloc(3)),
    ("calloc_aligned_at", calloc(4)),
    ("realloc_aligned", realloc(3)),
    ("realloc_aligned_at", realloc(4)),
    ("rezalloc_aligned", realloc(3)),
    ("rezalloc_aligned_at", realloc(4)),
    ("recalloc_aligned", recalloc(4)),
    ("recalloc_aligned_at", recalloc(5)),
];
