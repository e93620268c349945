//! The dynamic linker's lists as they were last read, and how they have changed since.

use std::collections::HashSet;

use leaktap_memory::Addr;

use crate::follow::Glance;
use crate::link_map::{LINK_LEN, Link, RDebug};

/// The entries of all lists, in order, and the module of each.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    pub(crate) links: Vec<Link>,
    /// As many; nothing of an entry whose module is not known.
    pub(crate) modules: Vec<Option<usize>>,
}

/// How lists differ from a [`Listing`].
#[derive(Debug)]
pub(crate) struct Difference {
    /// All entries now.
    pub(crate) now: Vec<Link>,
    /// As many: which entry of the listing each is; nothing of one that has come.
    pub(crate) before: Vec<Option<usize>>,
    /// Entries of the listing that are gone.
    pub(crate) gone: Vec<usize>,
    /// In each list, what has come is behind all that was there, which is in the order it was in.
    pub(crate) is_appended: bool,
}

impl Difference {
    /// Nothing has changed.
    pub(crate) fn is_empty(&self) -> bool {
        self.gone.is_empty() && self.come().next().is_none()
    }

    /// The entries that have come.
    pub(crate) fn come(&self) -> impl Iterator<Item = &Link> {
        let all = self.now.iter().zip(&self.before);
        all.filter(|(_, before)| before.is_none())
            .map(|(link, _)| link)
    }
}

impl Listing {
    /// How the lists of `r_debug` differ. Entries that were there are read together, or, if the
    /// linker `has_only_added` some, the last of each list alone: new ones go behind it.
    pub(crate) fn compare(
        &self,
        r_debug: RDebug,
        memory: &dyn Glance,
        has_only_added: bool,
    ) -> Difference {
        let mut known = match has_only_added {
            true => Known::as_listed(&self.links),
            false => Known::read(&self.links, memory),
        };
        let mut new = HashSet::new();
        let now = r_debug.links_by(memory, |at| match known.take(at) {
            Taken::Read(bytes) => Some(bytes),
            Taken::Again => None,
            Taken::Unread => {
                let mut bytes = [0; LINK_LEN];
                let is_read = new.insert(at) && memory.read(at, &mut bytes).is_ok();
                is_read.then_some(bytes)
            }
        });
        self.difference(now)
    }

    fn difference(&self, now: Vec<Link>) -> Difference {
        let mut by_address = Sorted::new(&self.links);
        let mut is_there = vec![false; self.links.len()];
        let mut is_appended = true;
        let (mut last, mut has_come) = (None, None);
        let mut before = Vec::with_capacity(now.len());
        for link in &now {
            let index = by_address.find(link.at);
            let index = index.filter(|index| self.links.get(*index) == Some(link));
            match index {
                None => has_come = Some(link.namespace),
                Some(index) => {
                    is_appended &= has_come != Some(link.namespace) && last < Some(index);
                    last = Some(index);
                    if let Some(is_there) = is_there.get_mut(index) {
                        *is_there = true;
                    }
                }
            }
            before.push(index);
        }
        let gone = (0..).zip(is_there).filter(|(_, is_there)| !is_there);
        Difference {
            now,
            before,
            gone: gone.map(|(index, _)| index).collect(),
            is_appended,
        }
    }
}

/// Where entries are: mostly, the next one asked for is the next one listed.
struct Sorted<'l> {
    links: &'l [Link],
    next: usize,
    by_address: Option<Vec<(Addr, usize)>>,
}

impl<'l> Sorted<'l> {
    fn new(links: &'l [Link]) -> Sorted<'l> {
        Sorted {
            links,
            next: 0,
            by_address: None,
        }
    }

    /// The entry at `at`.
    fn find(&mut self, at: Addr) -> Option<usize> {
        let is_next = self.links.get(self.next).is_some_and(|link| link.at == at);
        let found = match is_next {
            true => self.next,
            false => self.search(at)?,
        };
        self.next = found + 1;
        Some(found)
    }

    fn search(&mut self, at: Addr) -> Option<usize> {
        let sorted = self.by_address.get_or_insert_with(|| {
            let mut all: Vec<_> = self.links.iter().map(|link| link.at).zip(0..).collect();
            all.sort();
            all
        });
        let first = sorted.partition_point(|(known, _)| *known < at);
        sorted
            .get(first)
            .filter(|(known, _)| *known == at)
            .map(|(_, index)| *index)
    }
}

/// Entries of which is known what they say before they are asked for.
struct Known<'l> {
    sorted: Sorted<'l>,
    /// Nothing if they say what they did.
    read: Option<Vec<u8>>,
    is_taken: Vec<bool>,
}

/// What is known of an entry.
enum Taken {
    Read([u8; LINK_LEN]),
    /// It has been taken before.
    Again,
    /// Nothing.
    Unread,
}

impl<'l> Known<'l> {
    fn as_listed(links: &'l [Link]) -> Known<'l> {
        Known {
            sorted: Sorted::new(links),
            read: None,
            is_taken: vec![false; links.len()],
        }
    }

    fn read(links: &'l [Link], memory: &dyn Glance) -> Known<'l> {
        let places: Vec<Addr> = links.iter().map(|link| link.at).collect();
        Known {
            read: Some(memory.read_each(&places, LINK_LEN)),
            ..Known::as_listed(links)
        }
    }

    fn take(&mut self, at: Addr) -> Taken {
        let Some(index) = self.sorted.find(at) else {
            return Taken::Unread;
        };
        let bytes = match &self.read {
            Some(read) => read
                .get(index * LINK_LEN..)
                .unwrap_or_default()
                .first_chunk()
                .copied(),
            None => as_listed(self.sorted.links.get(index..).unwrap_or_default()),
        };
        let is_taken = self.is_taken.get_mut(index);
        match bytes {
            None => Taken::Unread,
            Some(_) if is_taken.is_some_and(|taken| std::mem::replace(taken, true)) => Taken::Again,
            Some(bytes) => Taken::Read(bytes),
        }
    }
}

/// What the first of `links` says that has another one of its list behind it.
fn as_listed(links: &[Link]) -> Option<[u8; LINK_LEN]> {
    let [link, next, ..] = links else {
        return None;
    };
    let mut bytes = [0; LINK_LEN];
    bytes[16..24].copy_from_slice(&link.dynamic.get().to_le_bytes());
    bytes[24..].copy_from_slice(&next.at.get().to_le_bytes());
    (link.namespace == next.namespace).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(links: &[(u64, u64, usize)]) -> Listing {
        let link = |(at, dynamic, namespace): &(u64, u64, usize)| Link {
            at: Addr::new(*at),
            dynamic: Addr::new(*dynamic),
            namespace: *namespace,
        };
        Listing {
            links: links.iter().map(link).collect(),
            modules: Vec::new(),
        }
    }

    #[test]
    fn what_has_come_and_what_is_gone_is_told_by_place_and_module() {
        let before = listing(&[(8, 1, 0), (16, 2, 0), (24, 3, 0), (32, 4, 1)]);
        for (now, gone, come, is_appended) in [
            (
                &[(8, 1, 0), (16, 2, 0), (24, 3, 0), (32, 4, 1)][..],
                &[][..],
                0,
                true,
            ),
            (
                &[(8, 1, 0), (24, 3, 0), (40, 5, 0), (32, 4, 1), (48, 6, 1)],
                &[1],
                2,
                true,
            ),
            // Another module in the same memory.
            (
                &[(8, 1, 0), (16, 2, 0), (24, 7, 0), (32, 4, 1)],
                &[2],
                1,
                true,
            ),
            (
                &[(8, 1, 0), (40, 5, 0), (16, 2, 0), (24, 3, 0), (32, 4, 1)],
                &[],
                1,
                false,
            ),
            (
                &[(16, 2, 0), (8, 1, 0), (24, 3, 0), (32, 4, 1)],
                &[],
                0,
                false,
            ),
            (&[], &[0, 1, 2, 3], 0, true),
        ] {
            let found = before.difference(listing(now).links);
            assert_eq!(found.gone, gone, "{now:?}");
            assert_eq!(
                (found.come().count(), found.is_appended),
                (come, is_appended)
            );
            assert_eq!(found.is_empty(), gone.is_empty() && come == 0);
        }
    }

    #[test]
    fn an_entry_says_what_is_listed_behind_it_in_its_own_list() {
        let all = listing(&[(8, 1, 0), (16, 2, 0), (32, 4, 1)]).links;
        let word = |at: usize, n| as_listed(&all[n..]).map(|bytes| bytes[at]);
        assert_eq!((word(16, 0), word(24, 0)), (Some(1), Some(16)));
        assert_eq!((word(16, 1), word(16, 2)), (None, None));
    }
}
