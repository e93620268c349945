//! The memo against plain walks: over random programs, what the memo says is what a walk says.

mod common;

use std::collections::HashMap;

use common::Words;
use common::program::{BASE, STACK, Thread, program};
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_testing::Random;
use leaktap_unwind::{End, Frame, Memo, Missed, ModuleRows, Row, Start, Walk, walk};

/// One of so many sets, and room for so many quads.
type Small = Memo<64, 1024>;
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
fn lend(start: Start, mem: &Words, words: usize) -> &[u64] {
    let from = mem.index(start.sp).unwrap_or(mem.words.len());
    let above = &mem.words[from..];
    &above[..above.len().min(words)]
}

/// What the memo finds with that part of the stack lent.
fn find<const S: usize, const Q: usize>(
    memo: &Memo<S, Q>,
    (start, generation, lent): (Start, u32, usize),
    mem: &Words,
) -> Result<u32, Missed> {
    let lent = lend(start, mem, lent);
    memo.find(start, generation, lent.len() as u64, |at| lent[at as usize])
}

/// What it finds with all of memory to read, from the first entry on.
fn find_in<const S: usize, const Q: usize>(
    memo: &Memo<S, Q>,
    start: Start,
    generation: u32,
    mem: &impl ReadMemory,
) -> Result<u32, Missed> {
    memo.find_in(
        start,
        generation,
        mem,
        Missed::nothing_yet(start, generation),
    )
}

/// The stack as the memo has it, and whether it was a hit.
fn by_memo<const S: usize, const Q: usize>(
    memo: &mut Memo<S, Q>,
    stacks: &mut Stacks,
    at: (Start, u32, usize),
    mem: &Words,
    program: &[Row],
) -> (Stack, bool) {
    let (start, generation, _) = at;
    let found = find(memo, at, mem);
    let anywhere = find_in(memo, start, generation, mem);
    let missed = match found {
        Ok(payload) => {
            assert_eq!(anywhere.ok(), Some(payload));
            None
        }
        Err(missed) if missed.is_out_of_reach() => {
            let found = memo.find_in(start, generation, mem, missed);
            assert_eq!(found.ok(), anywhere.ok());
            found.err()
        }
        Err(missed) => {
            assert_eq!(anywhere.ok(), None);
            Some(missed)
        }
    };
    let Some(missed) = missed else {
        return (stacks.all[anywhere.expect("found") as usize].clone(), true);
    };
    assert!(!missed.is_out_of_reach());
    let mut frames = [Frame::from_raw(0); DEPTH];
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: program,
    };
    let at = (start, generation, missed);
    let (Walk { depth, end }, keep) = memo.walk(at, mem, &mut rules, &mut frames);
    keep.keep(stacks.intern(&frames[..depth], end));
    ((frames[..depth].to_vec(), end), false)
}

/// Runs a random program with recursion; compares at each step; returns hits and walks.
fn run<const S: usize, const Q: usize>(
    seed: u64,
    memo: &mut Memo<S, Q>,
    kinds: u64,
) -> (usize, usize) {
    let (program, mut stacks) = (program(), Stacks::default());
    let mut random = Random(seed);
    let mut thread = Thread::new();
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
        let at = (start, 1, lent);
        let (seen, hit) = by_memo(memo, &mut stacks, at, &thread.stack, &program);
        assert_eq!(seen, plain(start, &thread.stack, &program));
        hits += usize::from(hit);
    }
    (hits, steps)
}

#[test]
fn random_call_paths_give_what_a_plain_walk_gives() {
    for (kinds, seeds) in [(1, 3), (3, 4), (4, 4), (6, 4), (7, 8)] {
        for seed in 1..=seeds {
            let mut memo = Small::EMPTY;
            let (hits, steps) = run(seed * 0x9e37, &mut memo, kinds);
            assert!(hits > 0 && hits < steps, "{hits} of {steps}");
        }
    }
}

/// One set that everything is after, and quads for some fifty walks.
#[test]
fn a_memo_that_is_full_again_and_again_forgets_and_says_nothing_wrong() {
    for seed in 1..=8 {
        let mut memo = Memo::<1, 272>::EMPTY;
        let (hits, steps) = run(seed * 0x9e37, &mut memo, 7);
        assert!(hits > 0 && hits < steps, "{hits} of {steps}");
    }
}

/// Parts of 160 quads; an entry has three, and each part keeps room for a long one.
#[test]
fn a_full_memo_forgets_the_oldest_walks() {
    let (program, thread) = simple();
    let mut memo = Memo::<64, 1280>::EMPTY;
    let mut stacks = Stacks::default();
    for last in 1..500 {
        let at = (thread.start(), last, ALL);
        by_memo(&mut memo, &mut stacks, at, &thread.stack, &program);
        for generation in last.saturating_sub(40).max(1)..=last {
            let at = (thread.start(), generation, ALL);
            assert!(
                find(&memo, at, &thread.stack).is_ok(),
                "{generation} of {last}"
            );
        }
    }
    let oldest = (thread.start(), 1, ALL);
    assert!(find(&memo, oldest, &thread.stack).is_err());
}

#[test]
fn a_loop_hits_although_data_in_saved_rbp_slots_changes() {
    let (program, mut stacks) = (program(), Stacks::default());
    let mut memo = Small::EMPTY;
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

/// Walks from the thread's start under generation 1, all of its stack lent, so that the memo knows
/// it.
fn remember(memo: &mut Small, thread: &Thread, program: &[Row]) {
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

fn hit(memo: &Small, start: Start, generation: u32, mem: &impl ReadMemory) -> bool {
    find_in(memo, start, generation, mem).is_ok()
}

#[test]
fn every_word_that_the_walk_read_matters_and_no_other() {
    let (program, thread) = simple();
    let mut memo = Small::EMPTY;
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
        let hit = hit(&memo, start, 1, &changed);
        assert_eq!(find(&memo, (start, 1, ALL), &changed).is_ok(), hit);
        let cut = find(&memo, (start, 1, 2), &changed);
        assert!(cut.is_err_and(Missed::is_out_of_reach));
        assert!(!hit || same);
        mattering += usize::from(!hit);
    }
    // Four return addresses, and the rbp that the frame with alloca is left by.
    assert_eq!(mattering, 5);
}

#[test]
fn another_generation_ip_or_sp_misses_and_rbp_only_if_it_was_used() {
    let (program, thread) = simple();
    let mut memo = Small::EMPTY;
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    assert!(hit(&memo, start, 1, &thread.stack));
    assert!(hit(&memo, Start { bp: 1, ..start }, 1, &thread.stack));
    assert!(!hit(&memo, start, 2, &thread.stack));
    let other = start.ip.wrapping_offset(1);
    assert!(!hit(&memo, Start { ip: other, ..start }, 1, &thread.stack));
    let other = start.sp.wrapping_offset(8);
    assert!(!hit(&memo, Start { sp: other, ..start }, 1, &thread.stack));

    let mut thread = Thread::new();
    thread.call(4, &mut Random(7));
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    assert!(hit(&memo, start, 1, &thread.stack));
    assert!(!hit(&memo, Start { bp: 1, ..start }, 1, &thread.stack));
}

#[test]
fn what_was_not_kept_or_cannot_be_compared_is_not_remembered() {
    let (program, thread) = simple();
    let mut memo = Small::EMPTY;
    let start = thread.start();
    let mut frames = [Frame::from_raw(0); DEPTH];
    let mut rules = ModuleRows {
        base: Addr::new(BASE),
        rows: &program,
    };
    let at = (start, 1, Missed::nothing_yet(start, 1));
    let (walk, _) = memo.walk(at, &thread.stack, &mut rules, &mut frames);
    assert_eq!(walk.end, End::Root);
    assert!(!hit(&memo, start, 1, &thread.stack));

    // Cut off inside the stack: next time the rest may be readable.
    let mut cut = thread.stack.clone();
    cut.words.truncate(((thread.sp - STACK) / 8) as usize + 2);
    let (walk, keep) = memo.walk(at, &cut, &mut rules, &mut frames);
    assert_eq!(walk.end, End::Unreadable);
    keep.keep(1);
    assert!(!hit(&memo, start, 1, &cut));
    assert!(!hit(&memo, start, 1, &thread.stack));
}

#[test]
fn where_there_is_no_room_every_walk_is_walked() {
    let (program, thread) = simple();
    let at = (thread.start(), 1, ALL);
    let expected = plain(thread.start(), &thread.stack, &program);
    let mut memo = Memo::<0, 1024>::EMPTY;
    for _ in 0..3 {
        let mut stacks = Stacks::default();
        let seen = by_memo(&mut memo, &mut stacks, at, &thread.stack, &program);
        assert_eq!(seen, (expected.clone(), false));
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

/// The stack may have changed so that an address remembered is not mapped any more: a lookup must
/// not touch it.
#[test]
fn a_lookup_reads_nothing_past_the_first_difference() {
    let (program, thread) = simple();
    let mut memo = Small::EMPTY;
    let start = thread.start();
    remember(&mut memo, &thread, &program);
    let mut changed = thread.stack.clone();
    changed.set(thread.sp, 0);
    let mem = Forbidden(&changed, vec![start.sp]);
    assert!(!hit(&memo, start, 1, &mem));
}

/// As of a recursion: every call path of a parser comes to its allocator at one rsp.
#[test]
fn walks_that_start_alike_part_where_they_differ() {
    let (program, mut stacks) = (program(), Stacks::default());
    let mut memo = Memo::<64, 8192>::EMPTY;
    let paths: Vec<Thread> = (0..200)
        .map(|path| {
            let mut thread = Thread::new();
            for bit in 0..8 {
                thread.call(2, &mut Random(0x51_7cc1 * (1 + (path >> bit & 1))));
            }
            thread
        })
        .collect();
    let starts: std::collections::HashSet<_> = paths.iter().map(|path| path.start().sp).collect();
    assert_eq!(starts.len(), 1);
    for round in 0..3 {
        for path in &paths {
            let at = (path.start(), 1, ALL);
            let (seen, hit) = by_memo(&mut memo, &mut stacks, at, &path.stack, &program);
            assert_eq!(seen, plain(path.start(), &path.stack, &program));
            assert!(hit || round == 0);
        }
    }
    assert!(stacks.all.len() >= 100, "{}", stacks.all.len());
}
