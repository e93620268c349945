//! Patterns in which some parts stand for any number of items.

/// Whether `text` is as `pattern` says: `*` stands for any bytes, `?` for one.
pub(super) fn matches(pattern: &str, text: &str) -> bool {
    let is_any = |part: &u8| *part == b'*';
    let fits = |part: &u8, byte: &u8| *part == b'?' || part == byte;
    is_like(
        pattern.as_bytes(),
        text.as_bytes(),
        End::Whole,
        is_any,
        fits,
    )
}

/// How much of the items a pattern is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// All of them.
    Whole,
    /// As many of the first as it has parts for.
    Start,
}

/// Whether `items` are as `pattern` says. A part of which `is_any` is true stands for any number of
/// items, another one for an item that it `fits`. Takes time as the product of the lengths at most.
pub(super) fn is_like<P, T>(
    pattern: &[P],
    items: &[T],
    end: End,
    is_any: impl Fn(&P) -> bool,
    fits: impl Fn(&P, &T) -> bool,
) -> bool {
    let (mut part, mut item) = (0, 0);
    // Behind the last part that stands for any number: where it is, and what it begins with.
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(part), items.get(item)) {
            (Some(of), _) if is_any(of) => {
                part += 1;
                retry = Some((part, item));
                continue;
            }
            (Some(of), Some(next)) if fits(of, next) => {
                (part, item) = (part + 1, item + 1);
                continue;
            }
            // Whatever that part stands for, too few are left.
            (Some(_), None) => return false,
            (None, left) if left.is_none() || end == End::Start => return true,
            _ => {}
        }
        let Some((behind, first)) = retry else {
            return false;
        };
        (part, item) = (behind, first + 1);
        retry = Some((behind, item));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_stand_for_bytes() {
        for (pattern, text, expected) in [
            ("malloc", "malloc", true),
            ("malloc", "mallocx", false),
            ("m?lloc", "malloc", true),
            ("m?lloc", "mlloc", false),
            ("*", "", true),
            ("?*", "", false),
            ("*alloc*", "xcalloc_r", true),
            ("a*b*c", "aXbYbZc", true),
            ("a*b*c", "aXbYbZ", false),
            ("/usr/lib*/libX11.so*", "/usr/lib64/libX11.so.6", true),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    /// A search that tries each way would never end.
    #[test]
    fn many_wildcards_take_no_time() {
        let pattern = "*a".repeat(200) + "b";
        assert!(!matches(&pattern, &"a".repeat(10_000)));
    }
}
