//! Text in so many columns.

/// `text` in lines of at most `width` columns, all but the first of them after `indent` spaces. A
/// longer word is cut.
pub(super) fn wrapped(text: &str, indent: usize, width: Option<usize>) -> String {
    let Some(width) = width else {
        return text.to_owned();
    };
    let mut lines = String::new();
    let mut column = 0;
    for (number, word) in text.split(' ').enumerate() {
        let word = cut(word, width.saturating_sub(indent));
        let length = word.chars().count();
        if column > indent && column + 1 + length > width {
            lines.push('\n');
            lines.push_str(&" ".repeat(indent));
            column = indent;
        } else if number > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(&word);
        column += length;
    }
    lines
}

/// `pieces` with two spaces between them. One that would be too long for its line begins a new one,
/// after `indent` spaces.
pub(super) fn joined(pieces: &[String], indent: usize, width: Option<usize>) -> String {
    let columns = width.unwrap_or(usize::MAX);
    let mut lines = String::new();
    let mut column = 0;
    for piece in pieces {
        let length = piece.chars().count();
        if column > 0 && column + 2 + length > columns {
            lines.push('\n');
            column = 0;
        }
        let gap = match (column, lines.is_empty()) {
            (0, true) => 0,
            (0, false) => indent,
            _ => 2,
        };
        let piece = format!("{:gap$}{piece}", "");
        column += gap + length;
        lines.push_str(&wrapped(&piece, indent, width));
    }
    lines
}

/// A name and a place that are in `room` columns with two spaces between them: the name loses its
/// end, and then the place its beginning.
pub(super) fn fitted(name: &str, place: &str, room: Option<usize>) -> (String, String) {
    let Some(room) = room else {
        return (name.to_owned(), place.to_owned());
    };
    const LEAST: usize = 12;
    let (names, places) = (name.chars().count(), place.chars().count());
    let gap = if names == 0 || places == 0 { 0 } else { 2 };
    if names + gap + places <= room {
        return (name.to_owned(), place.to_owned());
    }
    let for_name = room.saturating_sub(gap + places).max(LEAST.min(names));
    let for_place = room.saturating_sub(gap + for_name.min(names));
    let place = match places > for_place {
        true => format!("…{}", last(place, for_place.saturating_sub(1))),
        false => place.to_owned(),
    };
    (cut(name, for_name), place)
}

fn last(text: &str, columns: usize) -> String {
    let skipped = text.chars().count().saturating_sub(columns);
    text.chars().skip(skipped).collect()
}

/// Its first so many columns.
pub(super) fn cut(text: &str, columns: usize) -> String {
    match text.chars().count() > columns {
        true => text
            .chars()
            .take(columns.saturating_sub(1))
            .chain(['…'])
            .collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_wider() {
        let text = "leaktap: 36.5 KiB in 4 blocks and a_word_that_is_too_long left";
        let wrapped = wrapped(text, 2, Some(20));
        assert_eq!(
            wrapped,
            "leaktap: 36.5 KiB in\n  4 blocks and\n  a_word_that_is_to…\n  left"
        );
        let pieces = ["1. 20 B".to_owned(), "unmatched, 1 s old".to_owned()];
        assert_eq!(joined(&pieces, 2, Some(80)), "1. 20 B  unmatched, 1 s old");
        assert_eq!(
            joined(&pieces, 2, Some(20)),
            "1. 20 B\n  unmatched, 1 s old"
        );
        for (name, place, room, expected) in [
            ("open", "x.c:1", 11, ("open", "x.c:1")),
            ("open_connection", "x.c:1", 20, ("open_connect…", "x.c:1")),
            (
                "open_connection",
                "/a/long/path.c:1",
                20,
                ("open_connec…", "…h.c:1"),
            ),
            ("", "/a/long/path.c:1", 7, ("", "…th.c:1")),
        ] {
            let (name, place) = fitted(name, place, Some(room));
            assert_eq!((&*name, &*place), expected);
        }
    }
}
