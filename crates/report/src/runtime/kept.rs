//! The fixed list of what runtimes keep: functions, their callers, and how many blocks.
//!
//! No function of this list calls code of the program's, or returns memory that the caller frees.

/// What a function that was called by one of `callers` keeps. A `*` stands for what follows.
pub(super) struct Kept {
    pub(super) functions: &'static [&'static str],
    pub(super) callers: &'static [&'static str],
    /// Most blocks in a process.
    pub(super) most: u64,
}

/// The threads whose stacks glibc keeps for later ones: 40 MiB of them, as Rust's, of 2 MiB.
const THREADS: u64 = 20;

/// Blocks that the dynamic linker keeps of loaded libraries: eight or so of each.
pub(super) const MOST_OF_LOADER: u64 = 1024;

pub(super) const KEPT: &[Kept] = &[
    // Buffers of stdin, stdout and stderr. A FILE that is left open is a block of its own.
    Kept {
        functions: &["_IO_file_doallocate", "_IO_wfile_doallocate"],
        callers: &["_IO_doallocbuf", "_IO_wdoallocbuf"],
        most: 3,
    },
    // Tables of thread-local storage; that of modules which are loaded later.
    Kept {
        functions: &["_dl_allocate_tls"],
        callers: &["allocate_stack", "pthread_create*", "__pthread_create*"],
        most: THREADS,
    },
    Kept {
        functions: &["__tls_get_addr"],
        callers: &["*"],
        most: THREADS,
    },
    // Stacks, where the C library is the program's own: mappings of others are not listed.
    Kept {
        functions: &["allocate_stack", "pthread_create*", "__pthread_create*"],
        callers: &["*"],
        most: THREADS,
    },
    // What a static program's start notes for the dynamic linker: a few for each search path.
    Kept {
        functions: &["_dl_non_dynamic_init"],
        callers: &["__libc_init_first", "__libc_init_secure", "__libc_start_*"],
        most: 32,
    },
    // Memory for exceptions that are thrown when there is no other; a library without symbols calls
    // for it from its initialisation.
    Kept {
        functions: &["_GLOBAL__sub_I_eh_alloc.cc", "libstdc++.so"],
        callers: &[
            "call_init*",
            "_dl_init",
            "ld-linux-x86-64.so",
            "ld-musl-x86_64.so",
            "__libc_csu_init",
            "__libc_start_*",
        ],
        most: 1,
    },
    // The program's locale, for which setlocale(3) loads some twelve files, and the domains of its
    // messages and its libraries'.
    Kept {
        functions: &["setlocale"],
        callers: &["*"],
        most: 256,
    },
    Kept {
        functions: &[
            "__bindtextdomain",
            "bindtextdomain",
            "__textdomain",
            "textdomain",
        ],
        callers: &["*"],
        most: 16,
    },
    // Which files of locales and of messages there may be: of newlocale(3), too, whose locale is
    // the program's own.
    Kept {
        functions: &["_nl_make_l10nflist", "_nl_expand_alias"],
        callers: &["*"],
        most: 256,
    },
    // Translated messages, once they were asked for.
    Kept {
        functions: &[
            "_nl_find_domain",
            "_nl_load_domain",
            "__dcigettext",
            "dcgettext",
            "dgettext",
            "gettext",
            "dcngettext",
            "dngettext",
            "ngettext",
        ],
        callers: &["*"],
        most: 1024,
    },
    // The time zone.
    Kept {
        functions: &[
            "__tz_convert",
            "__tzset",
            "tzset",
            "localtime",
            "localtime_r",
            "mktime",
            "strftime",
        ],
        callers: &["*"],
        most: 16,
    },
    // How the locale's characters become wide ones.
    Kept {
        functions: &[
            "__wcsmbs_load_conv",
            "mblen",
            "mbrlen",
            "mbrtowc",
            "mbsrtowcs",
            "mbstowcs",
            "mbtowc",
            "btowc",
            "wcrtomb",
            "wcsrtombs",
            "wcstombs",
            "wctob",
            "wctomb",
        ],
        callers: &["*"],
        most: 16,
    },
    // Modules that convert characters: iconv_close(3) leaves them. What iconv_open(3) returns is
    // the program's own.
    Kept {
        functions: &["__gconv_find_transform"],
        callers: &["*"],
        most: 64,
    },
    // Where names of users, groups and hosts are looked up, and the answers that the next call
    // overwrites.
    Kept {
        functions: &[
            "__nss_*",
            "__getpwnam_r",
            "__getpwuid_r",
            "__getgrnam_r",
            "__getgrgid_r",
            "getpwent",
            "getpwnam",
            "getpwnam_r",
            "getpwuid",
            "getpwuid_r",
            "getgrent",
            "getgrgid",
            "getgrgid_r",
            "getgrnam",
            "getgrnam_r",
            "getspnam",
            "gethostbyaddr",
            "gethostbyname",
            "getprotobyname",
            "getprotobynumber",
            "getservbyname",
            "getservbyport",
        ],
        callers: &["*"],
        most: 64,
    },
    Kept {
        functions: &["__resolv_context_get", "__check_pf"],
        callers: &["*"],
        most: THREADS,
    },
    // The environment, which setenv(3) may not free: somebody may have got a value of it.
    Kept {
        functions: &["__add_to_environ", "setenv", "putenv"],
        callers: &["*"],
        most: 64,
    },
    // Values of many keys of a thread, and what a thread was told of a signal or an error.
    Kept {
        functions: &[
            "pthread_setspecific",
            "__pthread_setspecific",
            "___pthread_setspecific",
            "strerror",
            "strerror_l",
            "__strerror_l",
            "strsignal",
        ],
        callers: &["*"],
        most: THREADS,
    },
    // Tables of what printf(3) has been told of more than it knows, as by libquadmath.
    Kept {
        functions: &[
            "register_printf_specifier",
            "register_printf_modifier",
            "register_printf_type",
            "__register_printf_specifier",
            "__register_printf_modifier",
            "__register_printf_type",
        ],
        callers: &["*"],
        most: 8,
    },
    // What is to be done at the end, and at fork: beyond the first few dozen.
    Kept {
        functions: &["__new_exitfn", "__cxa_atexit"],
        callers: &["*"],
        most: 32,
    },
    Kept {
        functions: &["__register_atfork", "pthread_atfork"],
        callers: &["*"],
        most: 4,
    },
    // Rust: where the first thread's stack ends, its handle, and the buffers of standard streams.
    Kept {
        functions: &["std::sys::pal::unix::stack_overflow::*"],
        callers: &["std::sys::pal::unix::init", "std::rt::*"],
        most: 1,
    },
    Kept {
        functions: &["std::thread::current::init_current"],
        callers: &["*"],
        most: 1,
    },
    Kept {
        functions: &["std::io::stdio::stdin", "std::io::stdio::stdout"],
        callers: &["*"],
        most: 2,
    },
    // Debug information, of which the first backtrace of a panic makes tables. With a function that
    // is called back they hand on what a `Backtrace` of the program's keeps: that one is not here.
    Kept {
        functions: &[
            "<std::backtrace_rs::symbolize::gimli::Cache>::mapping_for_lib*",
            "<std::backtrace_rs::symbolize::gimli::Cache>::new",
            "<std::backtrace_rs::symbolize::gimli::Context>::*",
            "<std::backtrace_rs::symbolize::gimli::Mapping>::*",
            "std::backtrace_rs::symbolize::gimli::Cache::mapping_for_lib*",
            "std::backtrace_rs::symbolize::gimli::Cache::new",
            "std::backtrace_rs::symbolize::gimli::Context::*",
            "std::backtrace_rs::symbolize::gimli::Mapping::*",
        ],
        callers: &["*"],
        most: u64::MAX,
    },
];
