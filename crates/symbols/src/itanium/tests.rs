use std::time::{Duration, Instant};

use leaktap_testing::Random;

use super::*;

/// Symbols and names, as binutils 2.40 spell them but for a few that they do not know.
fn names() -> Vec<(&'static str, &'static str)> {
    let lines = include_str!("../../tests/data/names.tsv").lines();
    lines.map(|line| line.split_once('\t').unwrap()).collect()
}

#[test]
fn names_are_spelled_as_binutils_spell_them() {
    for (symbol, expected) in names() {
        assert_eq!(demangle(symbol).as_deref(), Some(expected), "{symbol}");
    }
}

#[test]
fn what_is_no_name_is_none() {
    for symbol in [
        "_Z",
        "_ZN",
        "_ZS_",
        "_ZT",
        "_ZN3app",
        "_Z99x",
        "_Z1fT_",
        "_Z1fIT0_EvS_",
        "open",
        "_Z1f?",
        "_Z99999999999999999999999x",
        "_ZC1v",
        "_Z1f.",
        "_ZE",
        "_ZNE",
        "_Z4größe",
        "_Z3ö",
    ] {
        let found = demangle(symbol);
        assert!(found.is_none(), "{symbol}: {found:?}");
    }
}

#[test]
fn names_that_would_be_endless_are_cut() {
    let deep = |start: &str, part: &str, end: &str| {
        format!("{start}{}{end}", part.repeat(30_000 / part.len()))
    };
    // Each type is twice the one before: the name of the last is longer than there is memory.
    let doubling = (1..30).fold("_Z1f1PI1AS0_E".to_owned(), |symbol, at| {
        let digit = char::from_digit(at, 36).unwrap_or('0').to_ascii_uppercase();
        symbol + &format!("S_IS{digit}_S{digit}_E")
    });
    for symbol in [
        deep("_Z1f", "P", "i"),
        deep("_Z1f", "1AI", ""),
        deep("_ZN", "1AI", ""),
        deep("_Z", "Z1fv", ""),
        deep("_Z1f", "PFv", ""),
        deep("_Z1fIX", "ng", ""),
        deep("_Z1f1A", "PS_", ""),
        deep("_Z1fIiEv", "T_", ""),
        deep("_Z1fIJ", "i", "EEvDpT_DpT_DpT_"),
        deep("_Z1f", "UlT_E_", ""),
        deep("_Z1fI", "J", "E"),
        deep("_Z1fI", "Ty", "iE"),
        deep("_Z1fI", "Tp", "iE"),
        deep("_Z", "Z1fE", "1g"),
        doubling,
    ] {
        let start = Instant::now();
        let found = demangle(&symbol);
        let took = start.elapsed();
        let len = found.map_or(0, |name| name.len());
        assert!(len <= 20_000, "{len} bytes");
        assert!(took < Duration::from_millis(500), "{took:?}: {symbol:.60}");
    }
}

/// Each was one that harmed: for ever, by a stack that overflows, by a panic.
#[test]
fn names_that_nobody_mangles_do_no_harm() {
    for symbol in [
        "_ZN1acvRT_IS1_EEv",
        "_Z1fIXsr1aILZNSaEEEE1bEEvv",
        "_Z1fIXsr1aITkNSaEiEE1bEEvv",
        "_ZN1aUt18446744073709551614_1fEv",
        "_ZZ1fvEd18446744073709551614_1g",
    ] {
        assert!(
            demangle(symbol).is_none_or(|name| name.len() <= 20_000),
            "{symbol}"
        );
    }
    let long = format!("_Z1fI{}E", "i".repeat(100_000));
    assert_eq!(demangle(&long), None);
}

/// Names that compilers make, with parts replaced, repeated and left out.
#[test]
fn no_name_is_too_odd() {
    let mut random = Random(8);
    let names = names();
    let pick = |random: &mut Random| {
        let at = random.below(names.len() as u64) as usize;
        names[at].0.as_bytes()
    };
    for _ in 0..20_000 {
        let mut symbol = pick(&mut random).to_vec();
        for _ in 0..=random.below(4) {
            let other = pick(&mut random);
            let from = random.below(other.len() as u64) as usize;
            let to = from + random.below((other.len() - from) as u64) as usize;
            let at = 2 + random.below(symbol.len() as u64 - 1) as usize;
            let end = (at + random.below(3) as usize).min(symbol.len());
            symbol.splice(at.min(symbol.len())..end, other[from..to].iter().copied());
        }
        let found = demangle(&String::from_utf8_lossy(&symbol));
        assert!(found.is_none_or(|name| name.len() <= 20_000));
    }
}
