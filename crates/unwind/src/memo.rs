use core::cell::{Cell, RefCell};
use core::sync::atomic::{AtomicU64, Ordering};

use leaktap_memory::{Addr, ReadMemory, Unreadable};

use crate::cache::slot;
use crate::walk::Walker;
use crate::{End, Frame, Rules, Start, Walk};

/// Walks that one [`Set`] can hold.
pub const WAYS: usize = 8;

/// Four of the words that a walk read; where it read fewer, the last one again.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct Quad {
    /// Where each word is, in words from the walk's first rsp.
    offsets: [i32; 4],
    /// What it was.
    values: [u64; 4],
}

/// A walk, and the words that it read.
#[derive(Clone, Debug)]
#[repr(C)]
struct Entry<const QUADS: usize> {
    ip: u64,
    sp: u64,
    bp: u64,
    generation: u32,
    payload: u32,
    /// Quads in use.
    len: u32,
    /// 1 if the walk depended on the rbp it started with.
    used_bp: u32,
    quads: [Quad; QUADS],
}

/// Up to [`WAYS`] walks that the same place in the memo serves, each of at most `4 * QUADS` words.
///
/// Plain integers; zeroed memory is an empty set. A walk reads a word a frame, and one more for each
/// frame whose rbp an outer one needs.
#[derive(Clone, Debug)]
#[repr(C, align(64))]
pub struct Set<const QUADS: usize> {
    /// 0, or a part of the key's hash: one cache line tells which entries are worth a look.
    tags: [u32; WAYS],
    next: u32,
    entries: [Entry<QUADS>; WAYS],
}

/// Remembers walks together with all that they depended on.
///
/// A walk is a function of the registers it starts with, the rules, and the words it reads, in that
/// order: each address is computed from the words before it. So if the registers and the generation
/// of the rules are the same, and word for word memory holds what it held, a walk would read the
/// same again and come to the same frames: a hit is exact, not a guess, and compares independent words
/// where a walk follows a chain. Only what a walk reads is compared: a saved rbp that no frame used is not, for compilers keep data in rbp.
///
/// One per thread, and for one limit of frames: the limit is not part of the key.
#[derive(Debug)]
pub struct Memo<'a, const QUADS: usize> {
    sets: &'a mut [Set<QUADS>],
}

/// What the memo knows of a walk.
#[derive(Debug)]
pub enum Lookup<'m, const QUADS: usize> {
    /// The payload kept with the same walk.
    Hit(u32),
    /// Not there.
    Miss(Miss<'m, QUADS>),
}

/// A walk that is not remembered, and the place where it could be.
#[derive(Debug)]
pub struct Miss<'m, const QUADS: usize> {
    start: Start,
    generation: u32,
    tag: u32,
    set: Option<&'m mut Set<QUADS>>,
}

/// A walk recorded but not yet in force; dropped, it is forgotten.
#[derive(Debug)]
#[must_use]
pub struct Keep<'m, const QUADS: usize> {
    tag: u32,
    place: Option<(&'m mut u32, &'m mut Entry<QUADS>)>,
}

impl<const QUADS: usize> Entry<QUADS> {
    const EMPTY: Entry<QUADS> = Entry {
        ip: 0,
        sp: 0,
        bp: 0,
        generation: 0,
        payload: 0,
        len: 0,
        used_bp: 0,
        quads: [const { Quad::EMPTY }; QUADS],
    };

    /// Whether a walk from `start` would be this one.
    #[inline]
    fn holds(
        &self,
        start: Start,
        generation: u32,
        stack: &[AtomicU64],
        mem: &impl ReadMemory,
    ) -> bool {
        let key = self.ip == start.ip.get()
            && self.sp == start.sp.get()
            && self.generation == generation
            && (self.used_bp == 0 || self.bp == start.bp);
        if !key {
            return false;
        }
        for quad in self.quads.iter().take(self.len as usize) {
            match quad.differs(stack) {
                Some(0) => {}
                Some(_) => return false,
                None => return self.holds_elsewhere(start, mem),
            }
        }
        true
    }

    /// Compares words that are not all in the borrowed stack. Reads in the walk's order and stops at the
    /// first difference: so it reads nothing that the walk would not have read.
    #[cold]
    fn holds_elsewhere(&self, start: Start, mem: &impl ReadMemory) -> bool {
        let words = |quad: &'_ Quad| quad.offsets.into_iter().zip(quad.values);
        let mut words = self.quads.iter().take(self.len as usize).flat_map(words);
        words.all(|(offset, value)| {
            let at = start.sp.wrapping_offset(i64::from(offset).wrapping_mul(8));
            mem.read_u64(at) == Ok(value)
        })
    }
}

impl Quad {
    const EMPTY: Quad = Quad {
        offsets: [0; 4],
        values: [0; 4],
    };

    /// 0 if `stack` still holds all four words; `None` if one of them lies outside. The loads do not
    /// wait for each other, as those of a walk do.
    #[inline]
    fn differs(&self, stack: &[AtomicU64]) -> Option<u64> {
        let mut difference = 0;
        for (&offset, &value) in self.offsets.iter().zip(&self.values) {
            // A negative offset becomes one past any slice.
            let word = stack.get(offset as usize)?;
            difference |= word.load(Ordering::Relaxed) ^ value;
        }
        Some(difference)
    }

    /// Makes `index` and what follows it the word at `offset`.
    fn fill_from(&mut self, index: usize, offset: i32, value: u64) {
        let words = self.offsets.iter_mut().zip(&mut self.values);
        for (at, was) in words.skip(index) {
            *at = offset;
            *was = value;
        }
    }
}

impl<const QUADS: usize> Set<QUADS> {
    /// A set that holds nothing.
    pub const EMPTY: Set<QUADS> = Set {
        tags: [0; WAYS],
        next: 0,
        entries: [const { Entry::EMPTY }; WAYS],
    };

    /// An entry under `tag` that `holds`. First all tags, without a branch: which of them it is cannot be
    /// foretold, and a wrong guess would cost more.
    #[inline]
    fn find(&self, tag: u32, holds: impl Fn(&Entry<QUADS>) -> bool) -> Option<u32> {
        let mut ways = 0_u32;
        for (way, &tagged) in self.tags.iter().enumerate() {
            ways |= u32::from(tagged == tag) << way;
        }
        while ways != 0 {
            let entry = self.entries.get(ways.trailing_zeros() as usize)?;
            if holds(entry) {
                return Some(entry.payload);
            }
            ways &= ways.wrapping_sub(1);
        }
        None
    }

    /// An empty place, or the one that was filled longest ago.
    fn place(&mut self) -> Option<(&mut u32, &mut Entry<QUADS>)> {
        let oldest = self.next as usize % WAYS;
        let way = self.tags.iter().position(|&tag| tag == 0).unwrap_or(oldest);
        self.next = (way as u32).wrapping_add(1);
        self.tags.get_mut(way).zip(self.entries.get_mut(way))
    }
}

impl<'a, const QUADS: usize> Memo<'a, QUADS> {
    /// A memo in `sets`, which keep what they hold. Of a number that is no power of two, the rest
    /// stays unused.
    #[inline]
    pub const fn over(sets: &'a mut [Set<QUADS>]) -> Memo<'a, QUADS> {
        Memo { sets }
    }

    /// Looks for the walk from `start` under the rules of `generation`.
    ///
    /// `stack` are the words from `start.sp` on, as far up as the caller can lend them; what lies elsewhere
    /// is read from `mem`. An empty slice is right, too, only slower.
    ///
    /// Whoever changes the rules (dlopen, dlclose) changes the generation, and all that was kept before misses.
    #[inline]
    pub fn find(
        &mut self,
        start: Start,
        generation: u32,
        stack: &[AtomicU64],
        mem: &impl ReadMemory,
    ) -> Lookup<'_, QUADS> {
        let hash = hash(start);
        // Not the bits that chose the set, and not the low ones, which depend on few bits of the key.
        let tag = (hash >> 16) as u32 | 1;
        let set = self.sets.get_mut(slot(hash, self.sets.len()));
        if let Some(set) = &set
            && let Some(payload) = set.find(tag, |e| e.holds(start, generation, stack, mem))
        {
            return Lookup::Hit(payload);
        }
        Lookup::Miss(Miss {
            start,
            generation,
            tag,
            set,
        })
    }
}

#[inline]
fn hash(start: Start) -> u64 {
    let ip = start.ip.get().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    (ip ^ start.sp.get()).wrapping_mul(0xd6e8_feb8_6659_fd93)
}

impl<'m, const QUADS: usize> Miss<'m, QUADS> {
    /// Walks, as [`walk`](crate::walk()) does, and records what the walk read.
    ///
    /// Not recorded are walks that end in unreadable memory (which may be readable next time), read words
    /// that are not aligned or more than 16 GiB from rsp, or read too many.
    pub fn walk(
        self,
        mem: &impl ReadMemory,
        rules: &mut impl Rules,
        frames: &mut [Frame],
    ) -> (Walk, Keep<'m, QUADS>) {
        let (start, tag) = (self.start, self.tag);
        let Some((place_tag, entry)) = self.set.and_then(Set::place) else {
            let walk = Walker::new(start, mem).fill(rules, frames);
            return (walk, Keep { tag, place: None });
        };
        *place_tag = 0;
        let recorder = Recorder::new(mem, start.sp, &mut entry.quads);
        let mut walker = Walker::new(start, &recorder);
        let walk = walker.fill(rules, frames);
        let used_bp = walker.used_start_bp();
        let len = recorder.quads();
        entry.ip = start.ip.get();
        entry.sp = start.sp.get();
        entry.bp = start.bp;
        entry.generation = self.generation;
        entry.used_bp = used_bp.into();
        entry.len = len.unwrap_or(0);
        let usable = len.is_some() && walk.end != End::Unreadable;
        let place = usable.then_some((place_tag, entry));
        (walk, Keep { tag, place })
    }
}

impl<const QUADS: usize> Keep<'_, QUADS> {
    /// From now on the same walk is found, with `payload`.
    #[inline]
    pub fn keep(self, payload: u32) {
        if let Some((tag, entry)) = self.place {
            entry.payload = payload;
            *tag = self.tag;
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
            complete: Cell::new(true),
        }
    }

    /// How many quads were begun, if all that was read was written down.
    fn quads(&self) -> Option<u32> {
        let quads = u32::try_from(self.len.get().div_ceil(4)).ok();
        quads.filter(|_| self.complete.get())
    }

    fn note(&self, at: Addr, value: u64) -> Option<()> {
        let bytes = at.get().wrapping_sub(self.sp.get()).cast_signed();
        let offset = i32::try_from(bytes >> 3).ok().filter(|_| bytes & 7 == 0)?;
        let index = self.len.get();
        let mut quads = self.quads.try_borrow_mut().ok()?;
        quads
            .get_mut(index / 4)?
            .fill_from(index % 4, offset, value);
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
}
