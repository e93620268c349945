//! What varies from run to run, and so is not compared.

use regex_lite::Regex;

use super::document::Sample;

/// What varies in each sample.
const VARIES: &[(&str, &str)] = &[
    (r"attached to \d+.*", "attached to #"),
    (r"pid \d+", "pid #"),
    (r"leaktap-demo-\d+", "leaktap-demo-#"),
    (r"0x[0-9a-f]+", "0x#"),
    (r"build id [0-9a-f]+", "build id #"),
    (r"[\d.]+ (ns|µs|ms|s|min|h)\b", "#s"),
    (r"([\d.,]+ to )?[\d.,]+/s", "#/s"),
    // It is looked at 20 times a second.
    (r"peak [\d.,]+ \w+", "peak #"),
    // How many functions a compiler has inlined.
    (r"… \d+ in ", "… # in "),
    // How much memory there was at moments, and whether a machine has limits.
    (r"^  (RSS|live)  .*$", ""),
    (r"^  forecast .*$", ""),
    // A busy machine, and no CAP_SYS_NICE.
    (r"^.*stops may have taken long.*$", ""),
];

/// What varies where it depends on when leaktap was there.
const AMOUNTS: &[(&str, &str)] = &[
    (r"[\d.,]+ (B|KiB|MiB)( \([\d,]+ B\))?", "# B"),
    (r"[+-]?[\d,]+ (block|kept|from before|of them)", "# $1"),
    (r"([\d,]+) (stacks?)", "# $2"),
];

/// The lines of `text` that are compared: those of `sample`, or what was printed in their place.
pub(super) fn normalised(sample: &Sample, text: &str) -> Vec<String> {
    let amounts = if sample.amounts_vary { AMOUNTS } else { &[] };
    let rules: Vec<_> = VARIES
        .iter()
        .chain(amounts)
        .map(|(pattern, instead)| (Regex::new(pattern).expect("a rule"), *instead))
        .collect();
    let normal = text.lines().map(|line| match line.starts_with("$ ") {
        true => line.to_owned(), // what a reader types is no matter of chance
        false => {
            let apply = |line: String, (rule, instead): &(Regex, &str)| {
                rule.replace_all(&line, *instead).into_owned()
            };
            rules.iter().fold(line.to_owned(), apply)
        }
    });
    let normal: Vec<_> = normal.map(|line| line.trim_end().to_owned()).collect();
    // Paragraphs: a line that a rule empties leaves none behind.
    normal.into_iter().filter(|line| !line.is_empty()).collect()
}

#[test]
fn what_varies_is_not_compared() {
    let of = |amounts_vary, text| {
        let sample = Sample {
            amounts_vary,
            ..Sample::default()
        };
        normalised(&sample, text).concat()
    };
    for (amounts_vary, one, other) in [
        (
            false,
            "leaktap: attached to 17",
            "leaktap: attached to 4711, with breakpoints: x",
        ),
        (
            false,
            "./x (pid 1, 1 thread), attached for 3.0 s",
            "./x (pid 99, 1 thread), attached for 950 ms",
        ),
        (
            false,
            "growing: 100 to 126/s in each quarter",
            "growing: 7.3/s in each quarter",
        ),
        (
            true,
            "1. 27.2 KiB (27,829 B) in 577 blocks",
            "1. 900 B in 1 block",
        ),
    ] {
        let (one, other) = (of(amounts_vary, one), of(amounts_vary, other));
        assert!(
            one == other || amounts_vary && other.replace("block", "blocks") == one,
            "{one} {other}"
        );
    }
    assert_ne!(of(false, "900 B in 1 block"), of(false, "901 B in 1 block"));
    assert_eq!(
        of(false, "$ leaktap --duration 3 s"),
        "$ leaktap --duration 3 s"
    );
}
