//! The ledger in shared memory, against simple models and under many threads.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

mod support;

use std::collections::HashMap;
use std::sync::Barrier;

use leaktap_ledger::{
    AREA_BITS, Block, FamilyId, Former, Freed, Kept, Key, Ledger, Misfree, Near, Pair, StackId,
    Totals, Trail,
};
use support::ledger;

/// Tests with threads do less by this under Miri, whose tables are smaller.
const LESS: u64 = if cfg!(miri) { 256 } else { 1 };

fn block(addr: u64, size: u64) -> Block {
    Block {
        key: addr.into(),
        size,
        stack: StackId((addr % 0xff_ffff) as u32),
        time: addr as u32,
    }
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        self.0 >> 33
    }
}

/// Random calls on a ledger of `tables` tables. With `twice`, addresses are allocated that are
/// live already, as happens if a free is not seen.
fn does_what_a_map_does(tables: u32, addresses: u64, twice: bool) {
    let ledger = ledger(tables);
    let mut model = HashMap::new();
    let mut random = Random(1);
    let mut taken = None;
    for _ in 0..300_000 {
        let addr = 16 + 16 * (random.next() % addresses);
        match random.next() % 10 {
            0..5 if twice || !model.contains_key(&addr) => {
                let block = block(addr, random.next());
                assert!(ledger.allocated(0, &block).is_ok());
                model.insert(addr, block);
                taken = None;
            }
            0..9 => {
                taken = Some(ledger.freed(0, addr));
                assert_eq!(taken, Some(model.remove(&addr)));
            }
            _ => {
                if let Some(block) = taken.take() {
                    let freed = Freed::new(FamilyId::FIRST, block);
                    assert_eq!(ledger.restore(0, freed), Ok(()));
                    model.extend(block.map(|block| (block.key.addr(), block)));
                }
            }
        }
    }
    holds(&ledger, model);
}

/// The ledger has the blocks of the model, and its sums are right.
fn holds(ledger: &Ledger<'_>, model: HashMap<u64, Block>) {
    let mut live: Vec<_> = ledger.live().collect();
    let mut expected: Vec<_> = model.into_values().collect();
    live.sort_by_key(|block| block.key.addr());
    expected.sort_by_key(|block| block.key.addr());
    assert_eq!(live, expected);
    let totals = ledger.totals(FamilyId::FIRST);
    let matched = totals.frees - totals.unmatched_frees;
    let blocks = totals.allocations - matched - totals.missed_frees;
    let bytes: u64 = live.iter().map(|block| block.size).sum();
    assert_eq!(blocks, live.len() as u64);
    assert_eq!(totals.allocated_bytes - totals.freed_bytes, bytes);
}

#[test]
fn one_table_does_what_a_map_does() {
    does_what_a_map_does(1, 30_000, true);
}

#[test]
fn several_tables_do_what_a_map_does() {
    does_what_a_map_does(3, 400_000, false);
}

/// As a thread of the target does: what it remembers of an area may be old.
#[test]
fn what_is_remembered_of_areas_is_good_when_they_have_gone_on_to_other_tables() {
    let ledger = ledger(3);
    let mut nears: HashMap<u64, Near> = HashMap::new();
    let mut model = HashMap::new();
    let mut random = Random(5);
    let (mut near_calls, mut all_calls) = (0, 0);
    for _ in 0..600_000 {
        let addr = (1 << AREA_BITS) + 16 * (random.next() % 400_000);
        let near = nears.get(&(addr >> AREA_BITS)).copied();
        assert!(near.is_none_or(|near| near.is_of(addr.into())));
        assert!(near.is_none_or(|near| !near.is_of((addr + (1 << AREA_BITS)).into())));
        let is_done = if let Some(there) = model.remove(&addr) {
            let is_done = near.is_some_and(|near| {
                // SAFETY: what is remembered is of this ledger and of this area.
                let freed = unsafe { ledger.freed_near(0, &near, addr.into(), 0) };
                freed.is_some()
            });
            if !is_done {
                assert_eq!(ledger.freed(0, addr), Some(there));
            }
            is_done
        } else {
            let block = block(addr, random.next());
            model.insert(addr, block);
            // SAFETY: as above.
            let is_done =
                near.is_some_and(|near| unsafe { ledger.allocated_near(0, &near, &block) });
            if !is_done {
                assert_eq!(ledger.allocated(0, &block), Ok(None));
            }
            is_done
        };
        near_calls += u32::from(is_done);
        all_calls += 1;
        if near.is_none()
            && let Some(found) = ledger.near(addr.into())
        {
            nears.entry(addr >> AREA_BITS).or_default().set(found);
        }
    }
    assert!(near_calls > all_calls / 4, "{near_calls} of {all_calls}");
    holds(&ledger, model);
}

/// As where leaktap attaches to a program with a heap: areas get their blocks late, and come to
/// have some in all tables.
#[test]
fn a_heap_that_is_there_before_the_ledger_comes_to_be_known() {
    const HEAP: u64 = 1_200_000;
    let ledger = ledger(8);
    let mut random = Random(9);
    let mut known = HashMap::new();
    for round in 0..2 * HEAP {
        let addr = 0x5555_0000_0000 + 48 * (random.next() % HEAP);
        let freed = ledger.freed(0, addr).map(|block| block.size);
        assert_eq!(freed, known.insert(addr, round), "{addr:#x}");
        ledger.allocated(0, &block(addr, round)).unwrap();
    }
    assert_eq!(ledger.live().count(), known.len());
    for (addr, size) in known {
        assert_eq!(ledger.freed(0, addr), Some(block(addr, size)));
    }
    assert_eq!(ledger.totals(FamilyId::FIRST).missed_frees, 0);
}

/// One block each in more areas than there is room for in the map.
#[test]
fn blocks_far_from_each_other_are_found() {
    const BLOCKS: u64 = 4_500_000;
    let ledger = ledger(12);
    let at = |n: u64| (n + 1) << 16;
    for n in 0..BLOCKS {
        assert_eq!(ledger.freed(0, at(n)), None);
        ledger.allocated(0, &block(at(n), n)).unwrap();
    }
    for n in 0..BLOCKS {
        assert_eq!(ledger.freed(0, at(n)), Some(block(at(n), n)));
    }
    assert_eq!(ledger.live().count(), 0);
}

#[test]
fn grows_and_takes_32_bytes_a_block_amortised() {
    let ledger = ledger(12);
    // As a heap looks: blocks of all sizes, one behind the other.
    let mut random = Random(3);
    let heap = (0..4_000_000).scan(0x5555_0000_0000, |next, _| {
        *next += 32 + 16 * (random.next() % 30);
        Some(*next)
    });
    let mut used = ledger.used().len();
    let mut blocks = Vec::new();
    for addr in heap {
        if ledger.allocated(0, &block(addr, 1)).is_err() {
            break;
        }
        blocks.push(addr);
        if used != ledger.used().len() {
            let each = |used: usize| used as f64 / blocks.len() as f64;
            let (before, opened) = (each(used), each(ledger.used().len()));
            // All of a new table may soon have been touched.
            println!("{before:.1}, {opened:.1} bytes a block at {}", blocks.len());
            assert!(before < 28.0);
            assert!(blocks.len() < 1_500_000 || before + opened < 2.0 * 32.0);
            used = ledger.used().len();
        }
    }
    let count = blocks.len() as u64;
    assert_eq!(ledger.live().count() as u64, count);
    assert_eq!(ledger.totals(FamilyId::FIRST).allocations, count);
    for addr in blocks {
        assert_eq!(
            ledger.freed(0, addr).map(|block| block.key.addr()),
            Some(addr)
        );
    }
    assert_eq!(ledger.live().count(), 0);
    assert_eq!(ledger.freed(0, 16), None);
}

/// What frees leave behind in older tables is used again.
#[test]
fn blocks_that_come_and_go_take_no_more_memory_than_those_that_stay() {
    const LIVE: usize = 1_000_000;
    let ledger = ledger(16);
    let mut random = Random(5);
    let mut next = 0x5555_0000_0000;
    let mut blocks = Vec::new();
    for _ in 0..4 * LIVE {
        next += 32 + 16 * (random.next() % 30);
        ledger.allocated(0, &block(next, 1)).unwrap();
        if blocks.len() < LIVE {
            blocks.push(next);
            continue;
        }
        let oldest = std::mem::replace(&mut blocks[random.next() as usize % LIVE], next);
        assert!(ledger.freed(0, oldest).is_some());
    }
    assert_eq!(ledger.live().count(), LIVE);
    let each = ledger.used().len() / LIVE;
    // As when another table has just been opened.
    assert!(each < 36, "{each} bytes a block");
}

#[test]
fn sizes_are_exact_up_to_half_a_tebibyte() {
    let ledger = ledger(1);
    let coarse = 1 << 16;
    for size in [
        0,
        1,
        (1 << 39) - 1,
        1 << 39,
        (1 << 39) + 1,
        1 << 47,
        1 << 54,
        u64::MAX,
    ] {
        ledger.allocated(0, &block(16, size)).unwrap();
        let kept = ledger.freed(0, 16).unwrap().size;
        match size {
            0..0x80_0000_0000 => assert_eq!(kept, size),
            u64::MAX => assert!(kept > 1 << 54),
            _ => assert!((size..size + coarse).contains(&kept), "{size:#x} {kept:#x}"),
        }
    }
}

#[test]
fn threads_that_share_a_table_lose_nothing() {
    const EACH: u64 = 60_000 / LESS;
    let ledger = ledger(3);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                let mut random = Random(thread + 1);
                let mut mine = Vec::new();
                for i in 0..EACH {
                    // Addresses of all threads are neighbours: they meet in the same buckets.
                    let addr = 16 * (1 + thread + 4 * i);
                    ledger.allocated(thread as usize, &block(addr, i)).unwrap();
                    mine.push((addr, i));
                    if !random.next().is_multiple_of(3) {
                        let pick = random.next() as usize % mine.len();
                        let (addr, size) = mine.swap_remove(pick);
                        let freed = ledger.freed(thread as usize, addr);
                        assert_eq!(freed, Some(block(addr, size)));
                    }
                }
                for (addr, size) in mine {
                    assert_eq!(ledger.freed(thread as usize, addr), Some(block(addr, size)));
                }
            });
        }
    });
    assert_eq!(ledger.live().count(), 0);
    let totals = ledger.totals(FamilyId::FIRST);
    assert_eq!((totals.allocations, totals.frees), (4 * EACH, 4 * EACH));
    assert_eq!((totals.unmatched_frees, totals.missed_frees), (0, 0));
}

fn frames(ledger: Ledger<'_>, id: StackId) -> Option<(Vec<u64>, Kept)> {
    let mut frames = Vec::new();
    let kept = ledger.stack(id, |frame| frames.push(frame))?;
    Some((frames, kept))
}

#[test]
fn a_stack_has_one_number_and_comes_back_whole() {
    let ledger = ledger(1);
    let mut random = Random(7);
    let mut known = HashMap::new();
    let mut trail = Trail::<12>::EMPTY;
    let mut stack = Vec::new();
    for _ in 0..20_000 {
        // Few frames: stacks share callers, and callers appear at any depth. Most have callers of
        // the one before.
        let same = random.next() as usize % (stack.len() + 1);
        stack.drain(..same);
        for _ in 0..random.next() % 10 {
            stack.insert(0, 0x5000 + random.next() % 30);
        }
        let kept = Kept {
            end: (random.next() % 3) as u8,
            kind: ((random.next() % 5) as u16) << 8,
        };
        let id = ledger.intern(&stack, kept).unwrap();
        let before = known.entry((stack.clone(), kept)).or_insert(id);
        assert_eq!(*before, id);
        // Whatever the trail has been before, and though it is shorter than some stacks.
        assert_eq!(ledger.intern_along(&stack, kept, &mut trail), Some(id));
        assert_eq!(frames(ledger, id), Some((stack.clone(), kept)));
    }
    assert_eq!(
        frames(ledger, StackId(u32::MAX)),
        frames(ledger, StackId(0))
    );
    assert_eq!(frames(ledger, StackId(0xff_0000)), None);
}

#[test]
fn threads_that_intern_the_same_stacks_agree() {
    let ledger = ledger(1);
    let start = Barrier::new(4);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                for i in 0..30_000 / LESS {
                    let stack = [
                        0x7f00_0000_0000 + i % (5000 / LESS),
                        0x5500 + i % 70,
                        0x5500 + i % 3,
                    ];
                    let id = ledger.intern(&stack, Kept::default()).unwrap();
                    assert_eq!(frames(ledger, id), Some((stack.to_vec(), Kept::default())));
                }
            });
        }
    });
}

/// A pool's first object lies where the chunk does that it took from another heap.
#[test]
fn blocks_of_two_families_may_be_at_one_address() {
    let ledger = ledger(1);
    let (first, pool) = (FamilyId::FIRST, FamilyId::new(15));
    let chunk = block(0x10_000, 4096);
    let object = Block {
        key: Key::new(pool, 0x10_000),
        ..block(0x10_000, 24)
    };
    assert_eq!(ledger.allocated(0, &chunk), Ok(None));
    assert_eq!(ledger.allocated(0, &object), Ok(None));
    assert_eq!((object.key.addr(), object.key.family()), (0x10_000, pool));
    assert_eq!(ledger.live().count(), 2);
    assert_eq!(ledger.find(object.key), Some(object));
    assert_eq!(ledger.freed(0, object.key), Some(object));
    assert_eq!(ledger.freed(0, object.key), None);
    assert_eq!(ledger.restore(0, Freed::Unmatched(pool)), Ok(()));
    assert_eq!(ledger.find(object.key), None);
    assert_eq!(ledger.find(chunk.key), Some(chunk));
    let [of_first, of_pool] = [first, pool].map(|family| ledger.totals(family));
    assert_eq!((of_first.allocations, of_first.frees), (1, 0));
    assert_eq!((of_pool.allocations, of_pool.frees), (1, 1));
    assert_eq!((of_pool.allocated_bytes, of_pool.freed_bytes), (24, 24));
}

#[test]
fn a_block_that_is_handed_on_is_known_by_another_stack() {
    let ledger = ledger(1);
    let wrapper = FamilyId::new(1);
    let (handed, inner) = (Key::new(wrapper, 48), Key::from(48));
    let other = Block {
        stack: StackId(7),
        ..block(48, 30)
    };
    assert_eq!(ledger.hand_on(wrapper, inner, other.stack), None);
    assert!(!ledger.is_passed_on(handed));
    assert!(ledger.allocated(0, &block(48, 30)).is_ok());
    let was = block(48, 30).stack;
    let handed_on = ledger.hand_on(wrapper, inner, other.stack);
    assert_eq!(handed_on, Some((30, was)));
    assert_eq!(ledger.find(inner), Some(other));
    assert!(ledger.is_passed_on(handed) && !ledger.is_passed_on(inner));
    assert_eq!(ledger.restore(0, Freed::PassedOn), Ok(()));
    assert_eq!(ledger.totals(wrapper), Totals::default());
    let totals = ledger.totals(FamilyId::FIRST);
    assert_eq!((totals.allocations, totals.allocated_bytes), (1, 30));
    // Blocks of its own are its own.
    let own = Block {
        key: handed,
        ..other
    };
    assert!(ledger.allocated(0, &own).is_ok());
    assert!(!ledger.is_passed_on(handed));
    // Nobody has it.
    assert_eq!(ledger.freed(0, handed), Some(own));
    assert_eq!(ledger.freed(0, inner), Some(other));
    assert!(!ledger.is_passed_on(handed));
}

#[test]
fn who_freed_a_block_is_remembered_until_its_place_is_used() {
    let ledger = ledger(1);
    let freed = |by| {
        Some(Former {
            stack: block(16, 1).stack,
            by,
        })
    };
    assert_eq!(ledger.freed_before(16), None);
    for by in [7, 8] {
        ledger.allocated(0, &block(16, 1)).unwrap();
        assert_eq!(ledger.freed_by(0, 16, by), Some(block(16, 1)));
        assert_eq!(
            (ledger.freed_before(16), ledger.freed(0, 16)),
            (freed(by), None)
        );
    }
    assert_eq!((ledger.find(16), ledger.live().count()), (None, 0));
    // Three that belong to the same bucket.
    for addr in [24, 32, 40] {
        ledger.allocated(0, &block(addr, 1)).unwrap();
    }
    assert_eq!(ledger.freed_before(16), None);
    assert_eq!(ledger.live().count(), 3);
}

#[test]
fn misfrees_are_kept_as_long_as_there_is_room() {
    let ledger = ledger(1);
    let misfree = |n: u64| Misfree {
        key: n.into(),
        stack: StackId(3),
        time: 5,
        earlier: n.is_multiple_of(2).then_some(Former {
            stack: StackId(n as u32),
            by: 4,
        }),
    };
    for n in 1..=5000 {
        let kept = ledger.keeps_misfrees().then(|| misfree(n));
        ledger.misfreed(kept.as_ref());
    }
    let (kept, count) = ledger.misfrees();
    let expected: Vec<_> = (1..=4096).map(misfree).collect();
    assert_eq!((kept.collect::<Vec<_>>(), count), (expected, 5000));
}

#[test]
fn pairs_are_kept_once_and_counted_where_there_is_no_place() {
    let ledger = ledger(1);
    let pair = |n: u64| Pair {
        stack: StackId(n as u32 % 7),
        ret: 0x1000 + n,
    };
    for n in (0..1000).chain(0..1000) {
        ledger.pair(pair(n));
    }
    let (kept, unplaced) = ledger.pairs();
    let mut kept: Vec<_> = kept.collect();
    kept.sort_unstable_by_key(|pair| pair.ret);
    assert_eq!(kept, (0..1000).map(pair).collect::<Vec<_>>());
    assert_eq!(unplaced, 0);
    (0..200_000).for_each(|n| ledger.pair(pair(n)));
    let (kept, unplaced) = ledger.pairs();
    assert!(kept.count() <= 64 << 10 && unplaced > 100_000, "{unplaced}");
}
