//! Numbers as people read them.

/// A size in bytes; exact below 10 KiB, one digit after the point from there on.
pub fn bytes(size: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if size < 10 << 10 {
        return format!("{} B", grouped(size));
    }
    let mut value = size as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS.get(unit).unwrap_or(&""))
}

/// A size in bytes, with the exact number where [`bytes`] rounds.
pub(crate) fn exact_bytes(size: u64) -> String {
    let rounded = bytes(size);
    if rounded.ends_with("iB") {
        return format!("{rounded} ({} B)", grouped(size));
    }
    rounded
}

/// A time in seconds.
pub(crate) fn seconds(value: f64) -> String {
    match value {
        v if v < 0.1 => format!("{:.0} ms", v * 1000.0),
        v if v < 10.0 => format!("{v:.1} s"),
        v if v < 120.0 => format!("{v:.0} s"),
        v if v < 7200.0 => format!("{:.0} min", v / 60.0),
        v => format!("{:.1} h", v / 3600.0),
    }
}

/// A time in seconds, in two units where it is long: `3 h 10 min`.
pub(crate) fn long_time(value: f64) -> String {
    let minutes = (value / 60.0).round() as u64;
    match minutes {
        0..2 => seconds(value),
        2..120 => format!("{minutes} min"),
        120..2880 => format!("{} h {} min", minutes / 60, minutes % 60),
        _ => format!("{} d {} h", minutes / 1440, minutes % 1440 / 60),
    }
}

/// `n` of something that forms its plural with an s.
pub fn count(n: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(n), if n == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (left, digit) in (0..digits.len()).rev().zip(digits.chars()) {
        text.push(digit);
        if left > 0 && left % 3 == 0 {
            text.push(',');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (size, expected, exact) in [
            (0, "0 B", "0 B"),
            (10_239, "10,239 B", "10,239 B"),
            (10_240, "10.0 KiB", "10.0 KiB (10,240 B)"),
            (1 << 20, "1.0 MiB", "1.0 MiB (1,048,576 B)"),
            (1023 << 20, "1.0 GiB", "1.0 GiB (1,072,693,248 B)"),
            (
                u64::MAX,
                "16384.0 PiB",
                "16384.0 PiB (18,446,744,073,709,551,615 B)",
            ),
        ] {
            assert_eq!(
                (bytes(size).as_str(), exact_bytes(size).as_str()),
                (expected, exact)
            );
        }
    }

    #[test]
    fn times_and_counts() {
        for (time, expected) in [
            (0.0, "0 ms"),
            (0.04, "40 ms"),
            (0.4, "0.4 s"),
            (90.0, "90 s"),
            (600.0, "10 min"),
            (9000.0, "2.5 h"),
        ] {
            assert_eq!(seconds(time), expected);
        }
        for (time, expected) in [
            (40.0, "40 s"),
            (600.0, "10 min"),
            (11_400.0, "3 h 10 min"),
            (200_000.0, "2 d 7 h"),
        ] {
            assert_eq!(long_time(time), expected);
        }
        assert_eq!(count(1, "block"), "1 block");
        assert_eq!(count(1_234_567, "block"), "1,234,567 blocks");
    }
}
