//! The memo against plain walks: over random programs, what the memo says is what a walk says.

mod common;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;

use common::program::{BASE, STACK, Thread, program};
use common::{Random, Words};
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_unwind::{End, Frame, Lookup, Memo, ModuleRows, Row, Set, Start, Walk, walk};

/// Room for 24 words.
const QUADS: usize = 6;
const DEPTH: usize = 20;
/// The whole stack is lent.
const ALL: usize = usize::MAX;

type Stack = (Vec<Frame>, End);

/// The stacks seen so far; a payload is an index.
#[derive(Default)]
struct Stacks {
    ids: HashMap<(Vec<u64>, u8), u32>,
    all: Vec<Stack>,
}

impl Stacks {
    fn intern(&mut self, frames: &[Frame], end: End) -> u32 {
        let key = (frames.iter().map(|frame| frame.raw()).collect(), end.into());
        *self.ids.entry(key).or_insert_with(|| {
            self.all.push((frames.to_vec(), end));
            self.all.len() as u32 - 1
        })
    }
}

fn plain(start: Start, mem: &Words, program: &[Row]) -> Stack {
    let mut frames = [Frame::from_raw(0); DEPTH];
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: program,
    };
    let Walk { depth, end } = walk(start, mem, &mut rules, &mut frames);
    (frames[..depth].to_vec(), end)
}

/// The words of the stack from rsp on, as an agent lends them, up to `words`.
fn lend(start: Start, mem: &Words, words: usize) -> Vec<AtomicU64> {
    let from = mem.index(start.sp).unwrap_or(mem.words.len());
    let words = mem.words[from..].iter().take(words);
    words.map(|&word| AtomicU64::new(word)).collect()
}

/// The stack as the memo has it, and whether it was a hit.
fn by_memo<const W: usize>(
    memo: &mut Memo<'_, W>,
    stacks: &mut Stacks,
    (start, generation, lent): (Start, u32, usize),
    mem: &Words,
    program: &[Row],
) -> (Stack, bool) {
    match memo.find(start, generation, &lend(start, mem, lent), mem) {
        Lookup::Hit(payload) => (stacks.all[payload as usize].clone(), true),
        Lookup::Miss(miss) => {
            let mut frames = [Frame::from_raw(0); DEPTH];
            let mut rules = ModuleRows {
                base: Addr::new(BASE),
                rows: program,
            };
            let (Walk { depth, end }, keep) = miss.walk(mem, &mut rules, &mut frames);
            keep.keep(stacks.intern(&frames[..depth], end));
            ((frames[..depth].to_vec(), end), false)
        }
    }
}

/// Runs a random program with recursion; compares at each step; returns hits and walks.
fn run(seed: u64, sets: &mut [Set<QUADS>], kinds: u64) -> (usize, usize) {
    let (program, mut stacks) = (program(), Stacks::default());
    let mut random = Random(seed);
    let mut thread = Thread::new();
    let mut memo = Memo::over(sets);
    let (mut hits, steps) = (0, 8_000);
    for _ in 0..steps {
        // Mostly short moves up and down: the outer frames stay.
        if thread.calls.len() < 30 && random.below(2) == 0 || thread.calls.is_empty() {
            thread.call(1 + random.below(kinds) as usize, &mut random);
        } else {
            thread.ret();
        }
        let start = thread.start();
        let lent = [0, 20, ALL][random.below(3) as usize];
        let (seen, hit) = by_memo(
            &mut memo,
            &mut stacks,
            (start, 1, lent),
            &thread.stack,
            &program,
        );
        assert_eq!(seen, plain(start, &thread.stack, &program));
        hits += usize::from(hit);
    }
    (hits, steps)
}

#[test]
fn random_call_paths_give_what_a_plain_walk_gives() {
    for (kinds, seeds) in [(1, 3), (3, 4), (4, 4), (6, 4), (7, 8)] {
        for seed in 1..=seeds {
            let mut sets = vec![Set::EMPTY; 64];
            let (hits, steps) = run(seed * 0x9e37, &mut sets, kinds);
            assert!(hits > 0 && hits < steps, "{hits} of {steps}");
        }
    }
}

#[test]
fn a_loop_hits_although_data_in_saved_rbp_slots_changes() {
    let (program, mut stacks) = (program(), Stacks::default());
    let mut sets = vec![Set::<QUADS>::EMPTY; 16];
    let mut memo = Memo::over(&mut sets);
    let mut hits = 0;
    for round in 0..1000 {
        let mut thread = Thread::new();
        // The same calls each time (the sites come from the seed), other data in rbp.
        let mut random = Random(99);
        for function in [3, 2, 3, 1] {
            thread.call(function, &mut random);
            thread.bp = round;
        }
        let at = (thread.start(), 1, ALL);
        hits += usize::from(by_memo(&mut memo, &mut stacks, at, &thread.stack, &program).1);
    }
    assert_eq!(hits, 999);
}

/// Walks from the thread's start under generation 1, all of its stack lent, so that the memo knows it.
fn remember(memo: &mut Memo<'_, QUADS>, thread: &Thread, program: &[Row]) {
    let at = (thread.start(), 1, ALL);
    by_memo(memo, &mut Stacks::default(), at, &thread.stack, program);
}

/// Four fixed frames, and then the words to tamper with.
fn simple() -> (Vec<Row>, Thread) {
    let mut thread = Thread::new();
    let mut random = Random(7);
    for function in [4, 2, 3, 1] {
        thread.call(function, &mut random);
    }
    (program(), thread)
}

fn hit(memo: &mut Memo<'_, QUADS>, start: Start, generation: u32, mem: &impl ReadMemory) -> bool {
    matches!(memo.find(start, generation, &[], mem), Lookup::Hit(_))
}

#[test]
fn every_word_that_the_walk_read_matters_and_no_other() {
    let (program, thread) = simple();
    let mut sets = vec![Set::EMPTY; 1];
    let mut memo = Memo::<QUADS>::over(&mut sets);
    let start = thread.start();
    let mut stacks = Stacks::default();
    by_memo(
        &mut memo,
        &mut stacks,
        (start, 1, ALL),
        &thread.stack,
        &program,
    );
    let mut mattering = 0;
    for index in 0..thread.stack.words.len() {
        let mut changed = thread.stack.clone();
        changed.words[index] ^= 8;
        let same = plain(start, &changed, &program) == plain(start, &thread.stack, &program);
        let hit = hit(&mut memo, start, 1, &changed);
        for lent in [2, ALL] {
            let lent = lend(start, &changed, lent);
            let found = memo.find(start, 1, &lent, &changed);
            assert_eq!(matches!(found, Lookup::Hit(_)), hit);
        }
        assert!(!hit || same);
        mattering += usize::from(!hit);
    }
    // Four return addresses, and the rbp that the frame with alloca is left by.
    assert_eq!(mattering, 5);
}

#[test]
fn another_generation_ip_or_sp_misses_and_rbp_only_if_it_was_used() {
    let (program, thread) = simple();
    let mut sets = vec![Set::EMPTY; 4];
    let mut memo = Memo::<QUADS>::over(&mut sets);
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    assert!(hit(&mut memo, start, 1, &thread.stack));
    assert!(hit(&mut memo, Start { bp: 1, ..start }, 1, &thread.stack));
    assert!(!hit(&mut memo, start, 2, &thread.stack));
    let other = start.ip.wrapping_offset(1);
    assert!(!hit(
        &mut memo,
        Start { ip: other, ..start },
        1,
        &thread.stack
    ));
    let other = start.sp.wrapping_offset(8);
    assert!(!hit(
        &mut memo,
        Start { sp: other, ..start },
        1,
        &thread.stack
    ));

    let mut thread = Thread::new();
    thread.call(4, &mut Random(7));
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    assert!(hit(&mut memo, start, 1, &thread.stack));
    assert!(!hit(&mut memo, Start { bp: 1, ..start }, 1, &thread.stack));
}

#[test]
fn what_was_not_kept_or_cannot_be_compared_is_not_remembered() {
    let (program, thread) = simple();
    let mut sets = vec![Set::EMPTY; 4];
    let mut memo = Memo::<QUADS>::over(&mut sets);
    let start = thread.start();
    let mut frames = [Frame::from_raw(0); DEPTH];
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: &program,
    };
    let Lookup::Miss(miss) = memo.find(start, 1, &[], &thread.stack) else {
        panic!("a hit")
    };
    let (walk, _) = miss.walk(&thread.stack, &mut rules, &mut frames);
    assert_eq!(walk.end, End::Root);
    assert!(!hit(&mut memo, start, 1, &thread.stack));

    // Cut off inside the stack: next time the rest may be readable.
    let mut cut = thread.stack.clone();
    cut.words.truncate(((thread.sp - STACK) / 8) as usize + 2);
    let Lookup::Miss(miss) = memo.find(start, 1, &[], &cut) else {
        panic!("a hit")
    };
    let (walk, keep) = miss.walk(&cut, &mut rules, &mut frames);
    assert_eq!(walk.end, End::Unreadable);
    keep.keep(1);
    assert!(!hit(&mut memo, start, 1, &cut));
    assert!(!hit(&mut memo, start, 1, &thread.stack));
}

#[test]
fn walks_of_too_many_words_and_memos_without_sets_are_walked_each_time() {
    let (program, thread) = simple();
    let at = (thread.start(), 1, ALL);
    let expected = plain(thread.start(), &thread.stack, &program);
    let mut small = vec![Set::<1>::EMPTY; 4];
    for sets in [small.as_mut_slice(), &mut []] {
        let mut memo = Memo::over(sets);
        for _ in 0..3 {
            let mut stacks = Stacks::default();
            let seen = by_memo(&mut memo, &mut stacks, at, &thread.stack, &program);
            assert_eq!(seen, (expected.clone(), false));
        }
    }
}

/// Counts what is read where the plain walk could not.
struct Forbidden<'a>(&'a Words, Vec<Addr>);

impl ReadMemory for Forbidden<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        assert!(self.1.contains(&at), "{at} is not on the walk's way");
        self.0.read(at, buf)
    }
}

/// The stack may have changed so that an address remembered is not mapped any more: a lookup must not touch it.
#[test]
fn a_lookup_reads_nothing_past_the_first_difference() {
    let (program, thread) = simple();
    let mut sets = vec![Set::EMPTY; 1];
    let mut memo = Memo::<QUADS>::over(&mut sets);
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    let mut changed = thread.stack.clone();
    changed.set(thread.sp, 0);
    let mem = Forbidden(&changed, vec![start.sp]);
    assert!(!hit(&mut memo, start, 1, &mem));
}
