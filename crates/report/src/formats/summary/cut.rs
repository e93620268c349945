//! Texts of a limited size in JSON.

use crate::names::printable;

/// As much of `text` as takes `most` bytes in JSON at most, with an ellipsis where that is not all.
pub(super) fn cut(text: &str, most: usize) -> String {
    const ELLIPSIS: char = '…';
    let text = printable(text);
    // What JSON has to escape takes two bytes: control characters are escaped already.
    let size = |c: char| c.len_utf8() + usize::from(matches!(c, '"' | '\\'));
    if text.chars().map(size).sum::<usize>() <= most {
        return text.into_owned();
    }
    let mut left = most.saturating_sub(ELLIPSIS.len_utf8());
    let fits = |c: &char| {
        let rest = left.checked_sub(size(*c));
        left = rest.unwrap_or_default();
        rest.is_some()
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    cut.push(ELLIPSIS);
    cut
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_longer() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abcdef", 5), "ab…");
        for text in ["\"".repeat(90), "\n".repeat(90), "ü".repeat(90)] {
            let cut = cut(&text, 20);
            assert!(serde_json::to_string(&cut).unwrap().len() <= 22, "{cut}");
        }
    }
}
