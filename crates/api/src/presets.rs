//! Allocators of well-known libraries that are not malloc's: what `--alloc-fn @NAME` stands for.
//!
//! Names as Debian 12's libraries export them (GLib 2.74, libxml2 2.9.14, OpenSSL 3.0, Python 3.11,
//! APR 1.7).

/// Names of presets and their specs.
pub(crate) const PRESETS: &[(&str, &str)] = &[
    ("apr", APR),
    ("glib", GLIB),
    ("libxml2", LIBXML2),
    ("openssl", OPENSSL),
    ("python", PYTHON),
];

/// Whole pools, of unknown size: what is in one (apr_palloc) is freed with it, and by nothing else.
/// A pool that goes with its parent is destroyed by a call from within, which is none of its own.
const APR: &str = "libapr-1.so*!apr_pool_create_ex:out=0 \
    libapr-1.so*!apr_pool_create_unmanaged_ex:out=0 \
    libapr-1.so*!apr_pool_destroy:ptr=0";

/// Slices. Those that g_slice_free_chain_with_offset frees, a whole list a call, are not seen to be
/// freed. From GLib 2.76 on slices are malloc's blocks, and so are g_malloc's always.
const GLIB: &str = "libglib-2.0.so*!g_slice_alloc:size=0,returns \
    libglib-2.0.so*!g_slice_alloc0:size=0,returns \
    libglib-2.0.so*!g_slice_copy:size=0,returns \
    libglib-2.0.so*!g_slice_free1:size=0,ptr=1";

/// Blocks with a header of libxml2's, for programs that have called xmlMemSetup with these.
/// xmlMalloc and its kin are variables that lead to malloc, unless a program has changed them. No
/// argument tells the size of a string's copy.
const LIBXML2: &str = "libxml2.so*!xmlMemMalloc:size=0,returns \
    libxml2.so*!xmlMallocLoc:size=0,returns \
    libxml2.so*!xmlMallocAtomicLoc:size=0,returns \
    libxml2.so*!xmlMemStrdupLoc:returns \
    libxml2.so*!xmlMemoryStrdup:returns \
    libxml2.so*!xmlMemRealloc:ptr=0,size=1,returns \
    libxml2.so*!xmlReallocLoc:ptr=0,size=1,returns \
    libxml2.so*!xmlMemFree:ptr=0";

/// CRYPTO_strdup and its kin call CRYPTO_malloc. The secure ones have an arena of their own, if the
/// program has asked for it.
const OPENSSL: &str = "libcrypto.so*!CRYPTO_malloc:size=0,returns \
    libcrypto.so*!CRYPTO_zalloc:size=0,returns \
    libcrypto.so*!CRYPTO_realloc:ptr=0,size=1,returns \
    libcrypto.so*!CRYPTO_clear_realloc:ptr=0,size=2,returns \
    libcrypto.so*!CRYPTO_free:ptr=0 \
    libcrypto.so*!CRYPTO_clear_free:ptr=0 \
    libcrypto.so*!CRYPTO_secure_malloc:size=0,returns \
    libcrypto.so*!CRYPTO_secure_zalloc:size=0,returns \
    libcrypto.so*!CRYPTO_secure_free:ptr=0 \
    libcrypto.so*!CRYPTO_secure_clear_free:ptr=0";

/// CPython's obmalloc, in libpython or in the interpreter itself.
const PYTHON: &str = "PyObject_Malloc:size=0,returns \
    PyObject_Calloc:count=0,size=1,returns \
    PyObject_Realloc:ptr=0,size=1,returns \
    PyObject_Free:ptr=0 \
    PyMem_Malloc:size=0,returns \
    PyMem_Calloc:count=0,size=1,returns \
    PyMem_Realloc:ptr=0,size=1,returns \
    PyMem_Free:ptr=0 \
    PyMem_RawMalloc:size=0,returns \
    PyMem_RawCalloc:count=0,size=1,returns \
    PyMem_RawRealloc:ptr=0,size=1,returns \
    PyMem_RawFree:ptr=0";
