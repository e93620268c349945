//! Texts that functions return.

#![allow(
    clippy::unwrap_used,
    reason = "helpers of tests may unwrap as tests do"
)]

mod support;

use leaktap_image::ElfFile;
use support::compile;

#[test]
fn text_that_a_function_returns_is_read_from_its_file() {
    let source = "const char *plain(void) { return \"leak:a\\nleak:b\\n\"; }\n\
        const char *none(void) { return 0; }\n\
        const char *varying(int n) { return n ? \"a\" : \"b\"; }\n\
        int main(void) { return 0; }\n";
    let dir = tempfile::tempdir().unwrap();
    for flags in [
        &["-O0"][..],
        &["-O2"],
        &["-O2", "-fcf-protection=full"],
        &["-O0", "-fno-pie", "-no-pie"],
    ] {
        let path = compile(dir.path(), "texts", source, flags);
        let file = ElfFile::open(&path).unwrap();
        let text = |name| file.text_returned_by(file.functions(name)[0].svma);
        assert_eq!(
            text("plain").as_deref(),
            Some("leak:a\nleak:b\n"),
            "{flags:?}"
        );
        assert_eq!(text("varying"), None, "{flags:?}");
        let none = text("none");
        assert!(none.is_none() || none.as_deref() == Some(""), "{flags:?}");
    }
}
