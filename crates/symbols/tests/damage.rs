//! Files that are cut short or altered: anything may be missing, nothing may panic or run away.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

use std::path::Path;
use std::sync::Arc;

use leaktap_image::{ElfFile, Error};
use leaktap_memory::Svma;
use leaktap_symbols::Resolver;
use leaktap_testing::Random;

const SOURCE: &str = "#include <stdlib.h>\n\
    static inline void *grab(unsigned n) { return malloc(n); }\n\
    void *twice(unsigned n) { return grab(2 * n); }\n\
    int main(int argc, char **argv) { (void)argv; return twice(argc) == 0; }\n";

/// All that a file can be asked.
fn ask(bytes: Vec<u8>) {
    let Ok(file) = ElfFile::from_bytes(Path::new("damaged"), bytes) else {
        return;
    };
    let file = Arc::new(file);
    let _ = (file.build_id_hex(), file.base(), file.entry(), file.cfi());
    let mut resolver = Resolver::new();
    for name in ["main", "malloc", "twice", "environ"] {
        let _ = (file.references(name), file.objects(name));
        for function in file.functions(name) {
            let _ = file.ifunc_slots(function.svma);
            let _ = file.bytes_at(function.svma, 16);
        }
    }
    let _ = file.function_names();
    for at in (0..0x6000).step_by(0x101).chain([u64::MAX, 1 << 63]) {
        let _ = file.symbol_at(Svma(at));
        assert!(!resolver.names(&file, Svma(at)).is_empty());
    }
}

fn files() -> Vec<Vec<u8>> {
    let dir = tempfile::tempdir().unwrap();
    let variants = [
        ("program", &["-g", "-O1"][..]),
        ("library", &["-g", "-O1", "-gz", "-shared", "-fPIC"][..]),
    ];
    let compiled = variants
        .map(|(name, flags)| leaktap_testing::compile("gcc", dir.path(), name, SOURCE, flags));
    compiled
        .iter()
        .map(|path| std::fs::read(path).unwrap())
        .collect()
}

#[test]
fn truncated_anywhere() {
    for file in files() {
        for len in (0..file.len()).step_by(97) {
            ask(file[..len].to_vec());
        }
    }
}

#[test]
fn altered_anywhere() {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for file in files() {
        for _ in 0..300 {
            let mut altered = file.clone();
            for _ in 0..=random.below(8) {
                let at = random.below(altered.len() as u64) as usize;
                altered[at] = random.below(256) as u8;
            }
            ask(altered);
        }
    }
}

/// Headers are a small part of a file, and everything depends on them.
#[test]
fn altered_headers() {
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    for file in files() {
        let sections = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
        for _ in 0..300 {
            let mut altered = file.clone();
            for range in [16..64, 64..0x300, sections..file.len()] {
                let at = range.start + random.below(range.len() as u64) as usize;
                altered[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5) as usize];
            }
            ask(altered);
        }
    }
}

/// Without section headers, what the dynamic linker and the unwinder need is still found.
#[test]
fn without_section_headers() {
    for file in files() {
        let mut bare = file.clone();
        bare[40..48].fill(0);
        bare[60..64].fill(0);
        let whole = ElfFile::from_bytes(Path::new("whole"), file).unwrap();
        let bare = ElfFile::from_bytes(Path::new("bare"), bare).unwrap();
        assert_eq!(bare.build_id(), whole.build_id());
        assert_eq!(bare.references("malloc"), whole.references("malloc"));
        let exported = |file: &ElfFile| {
            let functions = file.functions("twice").into_iter();
            functions
                .filter(|symbol| symbol.dynamic)
                .collect::<Vec<_>>()
        };
        assert_eq!(exported(&bare), exported(&whole));
        let (bare, whole) = (bare.cfi().eh_frame.unwrap(), whole.cfi().eh_frame.unwrap());
        assert_eq!(bare.svma, whole.svma);
        assert!(bare.bytes.starts_with(&whole.bytes));
    }
}

#[test]
fn what_is_not_ours_is_refused() {
    let file = files().remove(0);
    let refused = |at: usize, byte: u8| {
        let mut altered = file.clone();
        altered[at] = byte;
        ElfFile::from_bytes(Path::new("/x"), altered).unwrap_err()
    };
    assert_eq!(
        refused(4, 1).to_string(),
        "/x is not x86-64 code: a 32-bit file"
    );
    assert_eq!(
        refused(18, 183).to_string(),
        "/x is not x86-64 code: machine 183"
    );
    assert!(matches!(refused(0, b'#'), Error::NotElf { .. }));
    let error = ElfFile::open(Path::new("/nonexistent/x")).unwrap_err();
    assert_eq!(error.to_string(), "cannot read /nonexistent/x");
}
