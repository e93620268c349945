//! Symbol versions (DT_VERDEF, DT_VERNEED), and which definition a reference gets.

use std::collections::HashMap;

use object::elf;

use super::symbols::{Entry, HIDDEN, Table};
use super::words::{short_string_at, u16_at, u32_at};

/// Offsets of the fields of a record: all of it, then of its first auxiliary record.
struct Layout {
    aux: usize,
    next: usize,
}

const DEFINED: Layout = Layout { aux: 12, next: 16 };
const NEEDED: Layout = Layout { aux: 8, next: 12 };
/// Of the auxiliary records of those, which have none themselves.
const OF_ONE: Layout = Layout { aux: 12, next: 12 };

/// Most versions read: there are no more indices.
const MOST: usize = 1 << 16;

/// Names of the versions that a file defines (`Elf64_Verdef`) and needs (`Elf64_Verneed`), by
/// index.
pub(crate) fn names(definitions: &[u8], needs: &[u8], strings: &[u8]) -> HashMap<u16, String> {
    let mut names = HashMap::new();
    let text = |at| Some(String::from_utf8_lossy(short_string_at(strings, at)?).into_owned());
    for (at, aux) in records_at(definitions, 0, &DEFINED).take(MOST) {
        let name = || text(u32_at(definitions, aux)? as usize);
        if let Some(index) = u16_at(definitions, at + 4)
            && !names.contains_key(&index)
            && let Some(name) = name()
        {
            names.insert(index, name);
        }
    }
    // Index 1 is the file's own name, not a version.
    names.remove(&elf::VER_NDX_GLOBAL.0);
    let files = records_at(needs, 0, &NEEDED).take(MOST);
    let versions = files.flat_map(|(_, first)| records_at(needs, first, &OF_ONE));
    for (at, _) in versions.take(MOST) {
        let name = || text(u32_at(needs, at.checked_add(8)?)? as usize);
        if let Some(index) = u16_at(needs, at + 6).map(|index| index & !HIDDEN)
            && !names.contains_key(&index)
            && let Some(name) = name()
        {
            names.insert(index, name);
        }
    }
    names
}

/// Where the records of a list are, and where the auxiliary records of each begin. There are no
/// more than fit into `bytes`: offsets only lead forwards.
fn records_at<'a>(
    bytes: &'a [u8],
    first: usize,
    layout: &'a Layout,
) -> impl Iterator<Item = (usize, usize)> + 'a {
    let mut next = Some(first);
    std::iter::from_fn(move || {
        let at = next?;
        let field = |offset: usize| Some(u32_at(bytes, at.checked_add(offset)?)? as usize);
        let (aux, step) = (field(layout.aux)?, field(layout.next)?);
        next = at.checked_add(step).filter(|_| step > 0);
        Some((at, at.checked_add(aux)?))
    })
}

/// The one of `named`, all of one name in `table`, that a reference from another file with
/// `version` is bound to: the rules of glibc's `check_match`.
pub(crate) fn matching<'a>(
    table: &Table,
    mut named: impl Iterator<Item = &'a Entry>,
    version: Option<&str>,
) -> Option<&'a Entry> {
    /// The first version that a file defines; less is none.
    const FIRST: u16 = 2;
    if !table.versioned {
        return named.next();
    }
    if let Some(version) = version {
        return named.find(|entry| match table.version_name(entry.version_index()) {
            Some(name) => name == version,
            None => !entry.is_hidden(),
        });
    }
    // Without a version: the oldest one, for programs of before there were versions; else the
    // default, if it is the only one.
    let mut defaults = Vec::new();
    for entry in named {
        match entry.version_index() {
            ..=FIRST => return Some(entry),
            _ if !entry.is_hidden() => defaults.push(entry),
            _ => {}
        }
    }
    match defaults[..] {
        [only] => Some(only),
        _ => None,
    }
}
