//! Links in the documents lead to files and headings.

use std::fs;
use std::path::Path;

use regex_lite::Regex;

use crate::samples::documents;

/// What GitHub calls the heading of `line`: none if it is no heading.
fn anchor(line: &str) -> Option<String> {
    let title = line
        .starts_with('#')
        .then(|| line.trim_start_matches('#'))?;
    let words = title.trim().to_lowercase().replace(' ', "-");
    let is_kept = |c: &char| c.is_alphanumeric() || matches!(c, '-' | '_');
    Some(words.chars().filter(is_kept).collect())
}

/// Whether `link`, of the document at `from`, leads to a file, and to a heading of it if it names
/// one.
fn leads_somewhere(from: &Path, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    let path = match file.is_empty() {
        true => from.to_owned(),
        false => from.with_file_name(file),
    };
    // It may be a picture.
    let Ok(bytes) = fs::read(path) else {
        return false;
    };
    let text = String::from_utf8_lossy(&bytes);
    heading.is_empty() || text.lines().filter_map(anchor).any(|name| name == heading)
}

#[test]
fn links_lead_somewhere() {
    let link = Regex::new(r"\]\(([^):]+)\)").expect("a pattern");
    let mut dead = Vec::new();
    for path in documents() {
        let text = fs::read_to_string(&path).expect("a document");
        let links = link.captures_iter(&text).map(|found| found[1].to_owned());
        let wrong = links.filter(|link| !leads_somewhere(&path, link));
        dead.extend(wrong.map(|link| format!("{}: {link}", path.display())));
    }
    assert_eq!(dead, Vec::<String>::new());
}
