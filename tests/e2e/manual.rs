//! Help, manual pages and completions.

use crate::leaktap::leaktap_with;

fn printed(words: &[&str]) -> String {
    let finished = leaktap_with(words).succeeded();
    assert!(finished.stderr.is_empty(), "{}", finished.shown());
    finished.stdout_text()
}

#[test]
fn short_help_is_short_and_long_help_has_examples() {
    for command in ["run", "attach", "report"] {
        let (short, long) = (printed(&[command, "-h"]), printed(&[command, "--help"]));
        assert!(short.lines().count() <= 30, "{short}");
        for text in ["Examples:", "Exit status", "--depth"] {
            let is_of_a_trace = text != "--depth" || command != "report";
            assert_eq!(long.contains(text), is_of_a_trace, "{text}: {long}");
            assert!(!short.contains(text), "{text}: {short}");
        }
    }
    for status in ["125", "126", "127", "128+N"] {
        assert!(printed(&["--help"]).contains(status), "{status}");
    }
}

#[test]
fn manual_pages_tell_what_the_help_does() {
    let all = printed(&["man"]);
    for text in [".TH leaktap 1", "leaktap\\-attach(1)", "leaktap demo"] {
        assert!(all.contains(text), "{text}: {all}");
    }
    let attach = printed(&["man", "attach"]);
    let texts = [".TH leaktap-attach 1", "\\-\\-depth", "Most frames a stack"];
    for text in texts {
        assert!(attach.contains(text), "{text}: {attach}");
    }
}

#[test]
fn completions_know_options_and_no_inner_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = printed(&["completions", shell]);
        assert!(script.contains("error-exitcode"), "{shell}: {script}");
        assert!(!script.contains("guard"), "{shell}: {script}");
    }
}
