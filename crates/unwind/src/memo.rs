use core::cell::{Cell, RefCell};

use leaktap_memory::{Addr, GOLDEN, ReadMemory, Unreadable};

use crate::cache::slot;
use crate::walk::Walker;
use crate::{End, Frame, Rules, Start, Walk};

/// Walks that one set of slots can name.
const WAYS: usize = 8;

/// Most quads of a remembered walk: of 256 frames. It has a word for each frame, and one more for
/// each frame whose rbp an outer one needs.
const MOST: usize = 128;

/// Entries that a search goes on to, from the one that its hash names first.
const HOPS: u32 = 16;

/// In place of a word's number: the rbp that a walk starts with. Such a word would be 16 GiB away.
const BP: u32 = i32::MIN.cast_unsigned();

/// What a word is taken for that cannot be read.
const UNREADABLE: u64 = 0x5bd1_e995_7fb5_d329;

/// Parts of the quads that are forgotten at a time, the oldest first.
const PARTS: usize = 8;

/// Four of the words that a walk read; where it read fewer, the last one again. Or the header of
/// an entry, before its quads.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Quad {
    /// Where each word is, in words from the walk's first rsp. Header: generation, payload, quads,
    /// and 1 if the walk depended on the rbp it started with.
    numbers: [u32; 4],
    /// What it was. Header: ip, sp, bp, and behind the highest word, in words from sp.
    words: [u64; 4],
}

/// Remembers walks together with all that they depended on.
///
/// A walk is a function of the registers it starts with, the rules, and the words it reads, in that
/// order: each address is computed from the words before it. So if the registers and the generation
/// of the rules are the same, and word for word memory holds what it held, a walk would read the
/// same again and come to the same frames: a hit is exact, not a guess, and compares independent
/// words where a walk follows a chain. Only what a walk reads is compared: a saved rbp that no
/// frame used is not, for compilers keep data in rbp.
///
/// One per thread, and for one limit of frames: the limit is not part of the key. Plain integers;
/// zeroed memory is an empty memo.
///
/// *Search.* The registers and the generation make the hash by which the first entry is found.
/// Where a word is not what that walk read, the search goes on under a hash of the old one, the
/// word's place and what is there now: so walks that start alike part where they differ, and each
/// is at the end of a path of its own, mostly of one or two entries.
///
/// *Layout.* Entries lie behind one another in `quads`, none in two of their parts; what was in a
/// part is forgotten when it is written to again. A slot names an entry: 16 bits of its key's hash,
/// and the quad where it begins. Quad 0 is no entry: a slot of 0 finds nothing.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Memo<const SETS: usize, const QUADS: usize> {
    sets: [[u32; WAYS]; SETS],
    quads: [Quad; QUADS],
    /// The quad before the next entry: 0 names none.
    used: u32,
}

/// Where a search has ended in vain: there its walk is to be remembered.
#[derive(Clone, Copy, Debug)]
pub struct Missed {
    hash: u64,
    out_of_reach: bool,
}

/// What an entry is to a search.
enum Look {
    /// All words are what they were.
    Holds,
    /// Some are where the search does not look.
    OutOfReach,
    /// The first that is another, by number, and what it is now.
    Differs(u32, u64),
}

/// A walk recorded but not yet in force; dropped, it is forgotten.
#[derive(Debug)]
#[must_use]
pub struct Keep<'m> {
    place: Option<Place<'m>>,
}

/// Where an entry is that nothing names yet.
#[derive(Debug)]
struct Place<'m> {
    payload: &'m mut u32,
    slot: &'m mut u32,
    /// What goes there.
    name: u32,
    used: &'m mut u32,
    quads: u32,
}

/// A walk's start, as entries are looked up by it.
#[derive(Clone, Copy)]
struct Key {
    start: Start,
    generation: u32,
}

impl Key {
    /// The bits that choose the set are the top ones, which depend on all of the three.
    #[inline(always)]
    fn hash(self) -> u64 {
        let Start { ip, sp, .. } = self.start;
        let mixed = ip.get() ^ sp.get().rotate_left(32) ^ u64::from(self.generation);
        mixed.wrapping_mul(GOLDEN)
    }

    /// What a slot looks like that names an entry of this hash, but for the low 16 bits.
    #[inline(always)]
    fn tag(hash: u64) -> u32 {
        (hash >> 20) as u32
    }

    fn header(self, quads: u32, used_bp: bool, end: u64) -> Quad {
        let Start { ip, sp, bp } = self.start;
        Quad {
            numbers: [self.generation, 0, quads, used_bp.into()],
            words: [ip.get(), sp.get(), bp, end],
        }
    }

    /// Whether the entry behind `header` is this key's, but for rbp.
    #[inline]
    fn matches(self, header: &Quad) -> bool {
        let Key { start, generation } = self;
        let ([of, ..], [ip, sp, ..]) = (header.numbers, header.words);
        ip == start.ip.get() && sp == start.sp.get() && of == generation
    }

    /// Whether that entry's walk depended on another rbp.
    #[inline]
    fn has_other_bp(self, header: &Quad) -> bool {
        let ([.., uses_bp], [_, _, bp, _]) = (header.numbers, header.words);
        uses_bp != 0 && bp != self.start.bp
    }
}

/// The hash under which a search goes on that finds `now` at word `number`.
fn next(hash: u64, number: u32, now: u64) -> u64 {
    let mixed = hash ^ now.rotate_left(32) ^ u64::from(number);
    mixed.wrapping_mul(GOLDEN)
}

impl Missed {
    /// Nobody has searched yet.
    pub fn nothing_yet(start: Start, generation: u32) -> Missed {
        Missed {
            hash: Key { start, generation }.hash(),
            out_of_reach: true,
        }
    }

    /// Whether the search has ended at an entry with words that are not among those it looks at:
    /// [`Memo::find_in`] goes on from there.
    pub fn is_out_of_reach(self) -> bool {
        self.out_of_reach
    }
}

impl Quad {
    const EMPTY: Quad = Quad {
        numbers: [0; 4],
        words: [0; 4],
    };

    /// The words and where they are.
    #[inline(always)]
    fn each(&self) -> impl Iterator<Item = (&u32, &u64)> {
        self.numbers.iter().zip(&self.words)
    }

    /// What the first word that is not as `word` says does to a search.
    fn difference(&self, word: impl Fn(u32) -> u64) -> Look {
        let mut words = self.each().map(|(&at, was)| (at, *was, word(at)));
        let other = words.find(|(_, was, now)| was != now);
        other.map_or(Look::Holds, |(at, _, now)| Look::Differs(at, now))
    }

    /// Makes the words behind `index` the same as that one.
    fn repeat(&mut self, index: usize) {
        if let (Some(&number), Some(&word)) = (self.numbers.get(index), self.words.get(index)) {
            self.numbers
                .iter_mut()
                .skip(index)
                .for_each(|at| *at = number);
            self.words
                .iter_mut()
                .skip(index)
                .for_each(|was| *was = word);
        }
    }
}

impl<const SETS: usize, const QUADS: usize> Memo<SETS, QUADS> {
    /// A memo that holds nothing.
    pub const EMPTY: Self = Memo {
        sets: [[0; WAYS]; SETS],
        quads: [Quad::EMPTY; QUADS],
        used: 0,
    };

    const PART: usize = QUADS / PARTS;

    /// Most quads of an entry, behind its header.
    const MOST: usize = if Self::PART < MOST + 2 {
        Self::PART - 2
    } else {
        MOST
    };

    /// Quads have to be named by 16 bits, and an entry has to fit.
    const FITS: () = assert!(QUADS <= 1 << 16 && Self::PART > 2);

    /// The bits of a slot by which it names a quad.
    const NAME: usize = QUADS.next_power_of_two() - 1;

    /// The payload kept with the walk from `start` under the rules of `generation`, if all words
    /// that it read are among the `reach` words from `start.sp` on, none of them a guess: only
    /// these, by number, are asked of `word`, in the walk's order up to the first difference. So it
    /// asks for none that the walk would not have read.
    ///
    /// Whoever changes the rules (dlopen, dlclose) changes the generation, and all that was kept
    /// before is not found.
    ///
    /// # Errors
    /// Where the search has ended.
    #[inline(always)]
    pub fn find(
        &self,
        start: Start,
        generation: u32,
        reach: u64,
        word: impl Fn(u32) -> u64,
    ) -> Result<u32, Missed> {
        let key = Key { start, generation };
        self.search(key, key.hash(), |header, quads| {
            let [.., end] = header.words;
            if end > reach {
                return Look::OutOfReach;
            }
            // The loads do not wait for each other, as those of a walk do.
            let holds = |quad: &&Quad| quad.each().all(|(at, was)| word(*at) == *was);
            match quads.iter().find(|quad| !holds(quad)) {
                None => Look::Holds,
                Some(quad) => match quad.difference(&word) {
                    // It changed meanwhile, back to what it was.
                    Look::Holds => Look::OutOfReach,
                    other => other,
                },
            }
        })
    }

    /// Goes on where [`Memo::find`] has `missed` an entry, with all words read from `mem`, as
    /// guesses: in the walk's order up to the first difference, so that nothing is read that the
    /// walk would not have read.
    ///
    /// # Errors
    /// Where this search has ended.
    pub fn find_in(
        &self,
        start: Start,
        generation: u32,
        mem: &impl ReadMemory,
        missed: Missed,
    ) -> Result<u32, Missed> {
        let word = |at: u32| {
            let at = i64::from(at.cast_signed()).wrapping_mul(8);
            let word = mem.guess_u64(start.sp.wrapping_offset(at));
            word.unwrap_or(UNREADABLE)
        };
        self.search(Key { start, generation }, missed.hash, |_, quads| {
            let looks = quads.iter().map(|quad| quad.difference(word));
            let mut others = looks.filter(|look| !matches!(look, Look::Holds));
            others.next().unwrap_or(Look::Holds)
        })
    }

    /// The payload of the entry under `key` that holds, from the one on that `hash` names.
    #[inline(always)]
    fn search(
        &self,
        key: Key,
        mut hash: u64,
        look: impl Fn(&Quad, &[Quad]) -> Look,
    ) -> Result<u32, Missed> {
        let missed = |hash, out_of_reach| Missed { hash, out_of_reach };
        let mut hops = 0;
        while let Some((header, quads)) = self.entry(key, hash) {
            let look = match key.has_other_bp(header) {
                true => Look::Differs(BP, key.start.bp),
                false => look(header, quads),
            };
            let (at, now) = match look {
                Look::Holds => return Ok(header.numbers[1]),
                Look::OutOfReach => return Err(missed(hash, true)),
                Look::Differs(at, now) => (at, now),
            };
            // The last one's place is the new walk's.
            if hops == HOPS {
                break;
            }
            hops += 1;
            hash = next(hash, at, now);
        }
        Err(missed(hash, false))
    }

    /// The entry of `key` that is named by `hash`.
    #[inline(always)]
    fn entry(&self, key: Key, hash: u64) -> Option<(&Quad, &[Quad])> {
        let tag = Key::tag(hash);
        for &slot in self.sets.get(slot(hash, SETS))? {
            if !is_tagged(slot, tag) {
                continue;
            }
            let (header, quads) = self
                .quads
                .get(slot as usize & Self::NAME..)?
                .split_first()?;
            let [_, _, len, _] = header.numbers;
            if key.matches(header) {
                return Some((header, quads.get(..len as usize)?));
            }
        }
        None
    }

    /// Walks, as [`walk`](crate::walk()) does, and records what the walk read, to be found where
    /// the search for it has `missed` it.
    ///
    /// Not recorded are walks that end in unreadable memory (which may be readable next time), read
    /// words that are not aligned or more than 16 GiB from rsp, or read too many.
    pub fn walk(
        &mut self,
        (start, generation, missed): (Start, u32, Missed),
        mem: &impl ReadMemory,
        rules: &mut impl Rules,
        frames: &mut [Frame],
    ) -> (Walk, Keep<'_>) {
        let () = Self::FITS;
        if self.used as usize % Self::PART + 2 + Self::MOST > Self::PART {
            self.begin_part();
        }
        let key = Key { start, generation };
        let at = self.used as usize + 1;
        let set = self.sets.get_mut(slot(missed.hash, SETS));
        let entry = self.quads.get_mut(at..).and_then(<[Quad]>::split_first_mut);
        let Some((set, (header, quads))) = set.zip(entry) else {
            let walk = Walker::new(start, mem).fill(rules, frames);
            return (walk, Keep { place: None });
        };
        let recorder = Recorder::new(
            mem,
            start.sp,
            quads.get_mut(..Self::MOST).unwrap_or_default(),
        );
        let mut walker = Walker::new(start, &recorder);
        let walk = walker.fill(rules, frames);
        let used_bp = walker.used_start_bp();
        let recorded = recorder.recorded().filter(|_| walk.end != End::Unreadable);
        let Some((len, end)) = recorded else {
            return (walk, Keep { place: None });
        };
        *header = key.header(len, used_bp, end);
        let [_, payload, ..] = &mut header.numbers;
        let tag = Key::tag(missed.hash);
        let same = set.iter().position(|&slot| is_tagged(slot, tag));
        let free = || set.iter().position(|&slot| slot == 0);
        let way = same.or_else(free).unwrap_or(at % WAYS);
        let place = set.get_mut(way).map(|slot| Place {
            payload,
            slot,
            name: tag & !0xffff | at as u32,
            used: &mut self.used,
            quads: 1 + len,
        });
        (walk, Keep { place })
    }

    /// Goes on in the next part, whose entries are forgotten.
    fn begin_part(&mut self) {
        let next = (self.used as usize / Self::PART + 1) % PARTS;
        let first = next * Self::PART;
        for slot in self.sets.as_flattened_mut() {
            let entry = (*slot & 0xffff) as usize;
            if entry.wrapping_sub(first) < Self::PART {
                *slot = 0;
            }
        }
        self.used = first as u32;
    }
}

/// Whether `slot` names an entry of a hash with this tag.
#[inline(always)]
fn is_tagged(slot: u32, tag: u32) -> bool {
    slot ^ tag <= 0xffff
}

impl Keep<'_> {
    /// From now on the same walk is found, with `payload`.
    #[inline]
    pub fn keep(self, payload: u32) {
        if let Some(place) = self.place {
            *place.payload = payload;
            *place.used = place.used.wrapping_add(place.quads);
            *place.slot = place.name;
        }
    }
}

/// Memory that writes down what is read from it.
struct Recorder<'r, M> {
    mem: &'r M,
    sp: Addr,
    quads: RefCell<&'r mut [Quad]>,
    /// Words written down.
    len: Cell<usize>,
    /// Behind the highest of them, in words from sp; the largest number if there is one below.
    end: Cell<u64>,
    /// False once a word could not be written down.
    complete: Cell<bool>,
}

impl<'r, M: ReadMemory> Recorder<'r, M> {
    fn new(mem: &'r M, sp: Addr, quads: &'r mut [Quad]) -> Recorder<'r, M> {
        Recorder {
            mem,
            sp,
            quads: RefCell::new(quads),
            len: Cell::new(0),
            end: Cell::new(0),
            complete: Cell::new(true),
        }
    }

    /// How many quads were begun, and `end`, if all that was read was written down.
    fn recorded(&self) -> Option<(u32, u64)> {
        if let Some(last) = self.len.get().checked_sub(1) {
            let mut quads = self.quads.try_borrow_mut().ok()?;
            quads.get_mut(last / 4)?.repeat(last % 4);
        }
        let quads = u32::try_from(self.len.get().div_ceil(4)).ok()?;
        self.complete.get().then(|| (quads, self.end.get()))
    }

    #[inline(always)]
    fn note(&self, at: Addr, value: u64) -> Option<()> {
        let bytes = at.get().wrapping_sub(self.sp.get()).cast_signed();
        let offset = i32::try_from(bytes >> 3).ok().filter(|_| bytes & 7 == 0)?;
        let behind = u64::try_from(offset).map_or(u64::MAX, |offset| offset + 1);
        let index = self.len.get();
        let mut quads = self.quads.try_borrow_mut().ok()?;
        let quad = quads.get_mut(index / 4)?;
        *quad.numbers.get_mut(index % 4)? = offset.cast_unsigned();
        *quad.words.get_mut(index % 4)? = value;
        self.end.set(self.end.get().max(behind));
        self.len.set(index.wrapping_add(1));
        Some(())
    }
}
impl<M: ReadMemory> ReadMemory for Recorder<'_, M> {
    /// The walker reads words only; anything else could not be compared.
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        self.complete.set(false);
        self.mem.read(at, buf)
    }

    #[inline]
    fn read_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let value = self.mem.read_u64(at)?;
        if self.note(at, value).is_none() {
            self.complete.set(false);
        }
        Ok(value)
    }

    /// Such a walk is found by [`Memo::find_in`] alone.
    fn guess_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let value = self.mem.guess_u64(at)?;
        match self.note(at, value) {
            Some(()) => self.end.set(u64::MAX),
            None => self.complete.set(false),
        }
        Ok(value)
    }
}
