//! Symbol versions (DT_VERDEF, DT_VERNEED), and which definition a reference gets.

use std::collections::HashMap;
use std::collections::hash_map::Entry as Place;

use object::LittleEndian as LE;
use object::elf::{self, Verdaux, Verdef, Vernaux, Verneed};
use object::pod::Pod;

use super::symbols::{Entry, HIDDEN, Table};
use super::words::{record_at, short_string_at};

/// Most versions read: there are no more indices.
const MOST: usize = 1 << 16;

/// Names of the versions that a file defines and needs, by index.
pub(crate) fn names(definitions: &[u8], needs: &[u8], strings: &[u8]) -> HashMap<u16, String> {
    let mut names = HashMap::new();
    let text = |at: u32| {
        let name = short_string_at(strings, at as usize)?;
        Some(String::from_utf8_lossy(name).into_owned())
    };
    let defined = list(definitions, 0, |one: &Verdef<LE>| one.vd_next.get(LE));
    for (at, one) in defined.take(MOST) {
        let name = || {
            let first = at.checked_add(one.vd_aux.get(LE) as usize)?;
            text(
                record_at::<Verdaux<LE>>(definitions, first)?
                    .vda_name
                    .get(LE),
            )
        };
        add(&mut names, one.vd_ndx.get(LE).0, name);
    }
    // Index 1 is the file's own name, not a version.
    names.remove(&elf::VER_NDX_GLOBAL.0);
    let files = list(needs, 0, |file: &Verneed<LE>| file.vn_next.get(LE));
    let versions = files.take(MOST).flat_map(|(at, file)| {
        let first = at.saturating_add(file.vn_aux.get(LE) as usize);
        list(needs, first, |one: &Vernaux<LE>| one.vna_next.get(LE))
    });
    for (_, one) in versions.take(MOST) {
        let index = one.vna_other.get(LE).0 & !HIDDEN;
        add(&mut names, index, || text(one.vna_name.get(LE)));
    }
    names
}

/// The first name of an index counts.
fn add(names: &mut HashMap<u16, String>, index: u16, name: impl FnOnce() -> Option<String>) {
    if let Place::Vacant(vacant) = names.entry(index)
        && let Some(name) = name()
    {
        vacant.insert(name);
    }
}

/// The records of a list, and where each is; `next` says how far it is to the one behind. There are
/// no more than fit into `bytes`: offsets only lead forwards.
fn list<'a, T: Pod>(
    bytes: &'a [u8],
    first: usize,
    next: impl Fn(&T) -> u32 + 'a,
) -> impl Iterator<Item = (usize, &'a T)> {
    let mut rest = Some(first);
    std::iter::from_fn(move || {
        let at = rest?;
        let record = record_at(bytes, at)?;
        let step = next(record) as usize;
        rest = at.checked_add(step).filter(|_| step > 0);
        Some((at, record))
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
