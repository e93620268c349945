use core::cell::{Cell, RefCell};

use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::cache::slot;
use crate::walk::Walker;
use crate::{End, Frame, Rules, Start, Walk};

/// Walks that one set of slots can name.
const WAYS: usize = 8;

/// Most quads of a remembered walk. It has a word for each frame, and one more for each frame whose
/// rbp an outer one needs.
const MOST: usize = 32;

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
/// words
/// where a walk follows a chain. Only what a walk reads is compared: a saved rbp that no frame used
/// is not, for compilers keep data in rbp.
///
/// One per thread, and for one limit of frames: the limit is not part of the key. Plain integers;
/// zeroed memory is an empty memo.
///
/// *Layout.* Entries lie behind one another in `quads`, none in two of their parts; what was in a
/// part is forgotten
/// when it is written to again. A slot names an entry: 16 bits of its key's hash, and the quad
/// where it begins. Quad 0 is no
/// entry: a slot of 0 finds nothing.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Memo<const SETS: usize, const QUADS: usize> {
    sets: [[u32; WAYS]; SETS],
    quads: [Quad; QUADS],
    /// The quad before the next entry: 0 names none.
    used: u32,
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
        mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
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

    /// Whether the entry behind `header` is this key's.
    #[inline]
    fn matches(self, header: &Quad) -> bool {
        let Key { start, generation } = self;
        let ([of, .., uses_bp], [ip, sp, bp, _]) = (header.numbers, header.words);
        ip == start.ip.get()
            && sp == start.sp.get()
            && of == generation
            && (uses_bp == 0 || bp == start.bp)
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

    /// Quads have to be named by 16 bits, and an entry has to fit.
    const FITS: () = assert!(QUADS <= 1 << 16 && Self::PART >= 2 + MOST);

    /// The bits of a slot by which it names a quad.
    const NAME: usize = QUADS.next_power_of_two() - 1;

    /// The payload kept with the walk from `start` under the rules of `generation`, if all words
    /// that it read are
    /// among the `reach` words from `start.sp` on, none of them a guess: only these, by number, are
    /// asked of `word`, in the walk's
    /// order up to the first difference. So it asks for none that the walk would not have read.
    ///
    /// Whoever changes the rules (dlopen, dlclose) changes the generation, and all that was kept
    /// before is not found.
    #[inline(always)]
    pub fn find(
        &self,
        start: Start,
        generation: u32,
        reach: u64,
        word: impl Fn(u32) -> u64,
    ) -> Option<u32> {
        self.entry(Key { start, generation }, |header, quads| {
            let [.., end] = header.words;
            // The loads do not wait for each other, as those of a walk do.
            end <= reach
                && quads
                    .iter()
                    .all(|q| q.each().all(|(at, was)| word(*at) == *was))
        })
    }

    /// The same, with all words read from `mem`, as guesses: in the walk's order up to the first
    /// difference, so that nothing is
    /// read that the walk would not have read.
    pub fn find_in(&self, start: Start, generation: u32, mem: &impl ReadMemory) -> Option<u32> {
        self.entry(Key { start, generation }, |_, quads| {
            let mut words = quads.iter().flat_map(Quad::each);
            words.all(|(at, was)| {
                let at = i64::from(at.cast_signed()).wrapping_mul(8);
                mem.guess_u64(start.sp.wrapping_offset(at)) == Ok(*was)
            })
        })
    }

    /// Whether [`Memo::find`] may have passed over an entry because of its words that are not among
    /// the `reach` ones.
    pub fn is_out_of_reach(&self, start: Start, generation: u32, reach: u64) -> bool {
        let key = Key { start, generation };
        let found = self.entry(key, |header, _| header.words.last() > Some(&reach));
        found.is_some()
    }

    /// The payload of an entry under `key` that `holds`.
    #[inline(always)]
    fn entry(&self, key: Key, holds: impl Fn(&Quad, &[Quad]) -> bool) -> Option<u32> {
        let hash = key.hash();
        let tag = Key::tag(hash);
        for &slot in self.sets.get(slot(hash, SETS))? {
            if (slot ^ tag) > 0xffff {
                continue;
            }
            let (header, quads) = self
                .quads
                .get(slot as usize & Self::NAME..)?
                .split_first()?;
            let [_, payload, len, _] = header.numbers;
            if key.matches(header) && holds(header, quads.get(..len as usize)?) {
                return Some(payload);
            }
        }
        None
    }

    /// Walks, as [`walk`](crate::walk()) does, and records what the walk read.
    ///
    /// Not recorded are walks that end in unreadable memory (which may be readable next time), read
    /// words
    /// that are not aligned or more than 16 GiB from rsp, or read too many.
    pub fn walk(
        &mut self,
        start: Start,
        generation: u32,
        mem: &impl ReadMemory,
        rules: &mut impl Rules,
        frames: &mut [Frame],
    ) -> (Walk, Keep<'_>) {
        let () = Self::FITS;
        if self.used as usize % Self::PART + 2 + MOST > Self::PART {
            self.begin_part();
        }
        let key = Key { start, generation };
        let at = self.used as usize + 1;
        let set = self.sets.get_mut(slot(key.hash(), SETS));
        let entry = self.quads.get_mut(at..).and_then(<[Quad]>::split_first_mut);
        let Some((set, (header, quads))) = set.zip(entry) else {
            let walk = Walker::new(start, mem).fill(rules, frames);
            return (walk, Keep { place: None });
        };
        let recorder = Recorder::new(mem, start.sp, quads.get_mut(..MOST).unwrap_or_default());
        let mut walker = Walker::new(start, &recorder);
        let walk = walker.fill(rules, frames);
        let used_bp = walker.used_start_bp();
        let recorded = recorder.recorded().filter(|_| walk.end != End::Unreadable);
        let Some((len, end)) = recorded else {
            return (walk, Keep { place: None });
        };
        *header = key.header(len, used_bp, end);
        let [_, payload, ..] = &mut header.numbers;
        let any = at % WAYS;
        let way = set.iter().position(|&slot| slot == 0).unwrap_or(any);
        let place = set.get_mut(way).map(|slot| Place {
            payload,
            slot,
            name: Key::tag(key.hash()) & !0xffff | at as u32,
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
