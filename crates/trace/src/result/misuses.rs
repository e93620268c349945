//! Notes on frees that went wrong.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;

use leaktap_agent::layout::FREE_STACKS;
use leaktap_image::Module;
use leaktap_ledger::{Block, FamilyId, Key, Misfree, Pair};
use leaktap_memory::Addr;
use leaktap_report::{FrameId, one_line};
use leaktap_unwind as unwind;

use super::namer::Namer;
use crate::misuse::{Freer, Maker, Wrong, holds, judge};
use crate::target::Target;

/// Most kinds of misuse that are listed.
const MOST: usize = 50;

/// So many kinds of frees of blocks of one family that were not seen to be allocated, by who freed
/// and who had the address before, are not the program's fault: it allocates by a function that is
/// not known.
const UNSEEN: usize = 16;

/// Notes on misuse, each with how often it was seen, if that is known.
#[derive(Default)]
struct Notes(Vec<(String, Option<u64>)>);

impl Notes {
    /// The free was another one of these.
    fn count(&mut self, text: String) {
        match self.0.iter_mut().find(|(known, _)| *known == text) {
            Some((_, times)) => *times = times.map(|times| times + 1),
            None => self.0.push((text, Some(1))),
        }
    }

    fn into_lines(mut self) -> Vec<String> {
        let more = self.0.len().saturating_sub(MOST);
        self.0.truncate(MOST);
        let line = |(text, times): (String, Option<u64>)| match times {
            Some(times) if times > 1 => format!("{text} ({times} times)"),
            _ => text,
        };
        let lines = self.0.into_iter().map(line);
        let rest = (more > 0).then(|| format!("and {more} more kinds of wrong frees"));
        lines.chain(rest).collect()
    }
}

impl Namer<'_> {
    /// What the report has to say of frees that went wrong.
    pub(super) fn misuses(&mut self) -> Vec<String> {
        let mut notes = Notes::default();
        let (misfrees, count) = self.target.books.misfrees();
        let holders = self.holders(&misfrees);
        let judged = misfrees.iter().map(|misfree| {
            let holder = holders.get(&misfree.key).copied();
            let is_of_heap = self.target.books.is_of_heap(misfree.key);
            (misfree, judge(misfree, holder, is_of_heap))
        });
        let judged: Vec<_> = judged.collect();
        let unseen = unseen(&judged);
        for (misfree, wrong) in judged {
            if !wrong.is_unseen() || !unseen.contains_key(&misfree.key.family()) {
                let text = self.misfree(misfree, wrong);
                notes.count(text);
            }
        }
        let (pairs, unplaced) = self.target.books.pairs();
        self.mismatches(pairs, &mut notes);
        let mut lines = notes.into_lines();
        lines.extend(
            unseen
                .iter()
                .map(|(family, frees)| self.unseen(*family, *frees)),
        );
        let dropped = count.saturating_sub(misfrees.len() as u64);
        if dropped > 0 {
            lines.push(format!(
                "{dropped} more frees of no live block are not described"
            ));
        }
        if unplaced > 0 {
            lines.push(format!(
                "whether the right function freed was not looked at in {unplaced} cases: there are \
                 too many"
            ));
        }
        lines
    }

    /// The live blocks that have the addresses of `misfrees` in them.
    fn holders(&self, misfrees: &[Misfree]) -> HashMap<Key, Block> {
        let unknown = misfrees.iter().filter(|misfree| misfree.earlier.is_none());
        let place = |misfree: &Misfree| (misfree.key.addr(), misfree.key.family());
        let sought: BTreeMap<_, _> = unknown.map(|misfree| (place(misfree), misfree)).collect();
        let mut holders = HashMap::new();
        if sought.is_empty() {
            return holders;
        }
        for block in self.target.books.blocks() {
            let start = block.key.addr();
            let end = start.saturating_add(block.size);
            let first = (start, FamilyId::FIRST);
            for (_, misfree) in sought.range(first..(end, FamilyId::FIRST)) {
                if holds(&block, misfree) {
                    holders.insert(misfree.key, block);
                }
            }
        }
        holders
    }

    fn unseen(&self, family: FamilyId, frees: usize) -> String {
        let families = self.target.process().modules().families();
        let name = families.name(family).unwrap_or_default();
        format!(
            "{frees} frees were of blocks that no known function has allocated, and of so many \
             kinds that {name} seems to have others: double frees cannot be told from these"
        )
    }

    fn misfree(&mut self, misfree: &Misfree, wrong: Wrong) -> String {
        let freed = self.place_of(misfree.stack.0);
        match wrong {
            Wrong::Twice(first) => {
                let made = self.place_of(first.stack.0);
                let before = self.place_of_free(first.by);
                format!("double free at {freed}: allocated at {made}, freed first at {before}")
            }
            Wrong::Inside(block, offset) => format!(
                "free inside a live block, {offset} bytes from its beginning, at {freed}: \
                 allocated at {}",
                self.place_of(block.stack.0)
            ),
            Wrong::Foreign(block) => format!(
                "free by another allocator than the block's at {freed}: allocated at {}",
                self.place_of(block.stack.0)
            ),
            Wrong::Never => format!("free of what was never allocated at {freed}"),
            Wrong::NoBlock => {
                format!("free of no live block at {freed}: freed long before, or never allocated")
            }
        }
    }

    /// Blocks that the wrong function has freed.
    fn mismatches(&mut self, pairs: impl IntoIterator<Item = Pair>, notes: &mut Notes) {
        let (mut makers, mut freers) = (HashMap::new(), HashMap::new());
        let calls = Calls::of(self.target);
        let mut wrong: Vec<_> = pairs
            .into_iter()
            .filter_map(|pair| {
                let maker = *makers
                    .entry(pair.stack)
                    .or_insert_with(|| self.maker(pair.stack.0, &calls));
                let freer = *freers
                    .entry(pair.ret)
                    .or_insert_with(|| freer(pair.ret, &calls));
                let (maker, freer) = (maker?, freer?);
                (!freer.is_for(maker)).then_some((pair, maker, freer))
            })
            .collect();
        wrong.sort_unstable_by_key(|(pair, ..)| *pair);
        for (pair, maker, freer) in wrong {
            let freed = self.place_of_return(pair.ret);
            let made = self.place_of(pair.stack.0);
            let (freer, maker) = (freer.name(), maker.name());
            let text = format!("mismatched {freer} at {freed}: allocated by {maker} at {made}");
            if !notes.0.iter().any(|(known, _)| *known == text) {
                notes.0.push((text, None));
            }
        }
    }

    fn maker(&self, stack: u32, calls: &Calls) -> Option<Maker> {
        let (raw, _, function) = self.target.books.stack(stack)?;
        let process = self.target.process();
        let frame = |index: usize| raw.get(index).copied().map(unwind::Frame::from_raw);
        let innermost = frame(0)?;
        let called = calls.before(innermost.address());
        let next = frame(1).and_then(|next| calls.before(next.address()));
        Maker::of(
            process.functions().name(function),
            calls.inside(innermost.lookup()).as_deref(),
            [called.as_deref(), next.as_deref()],
            process.modules().is_system(innermost.lookup()),
        )
    }

    fn place_of(&mut self, stack: u32) -> String {
        let frames = self.stack(stack).frames;
        self.line(&frames)
    }

    fn line(&self, frames: &[FrameId]) -> String {
        let program = self.target.program.file.display().to_string();
        one_line(&program, &self.tables().stack(frames))
    }

    /// Who has freed a block, by what the ledger was told: a stack, or half of a return address.
    fn place_of_free(&mut self, by: u32) -> String {
        if self.target.books.wants(FREE_STACKS) {
            return self.place_of(by.wrapping_sub(1));
        }
        let calls = Calls::of(self.target);
        let ends = |ret: &u64| calls.before(Addr::new(*ret)).is_some();
        let mut all = self.addresses_that_end_in(by);
        if all.len() > 1 {
            all.retain(ends);
        }
        match all[..] {
            [ret] => self.place_of_return(ret),
            _ => "an unknown place".to_owned(),
        }
    }

    /// The addresses in code of the modules that have this lower half.
    fn addresses_that_end_in(&self, low: u32) -> Vec<u64> {
        let modules = self.target.process().modules().image().modules();
        let ranges = modules.iter().flat_map(Module::executable);
        let in_range = ranges.filter_map(|range| {
            let (start, end) = (range.start.get(), range.end.get());
            let high = start & !u64::from(u32::MAX);
            let both = [high, high.wrapping_add(1 << 32)].into_iter();
            let mut both = both.map(|high| high | u64::from(low));
            both.find(|at| (start..end).contains(at))
        });
        in_range.collect()
    }

    fn place_of_return(&mut self, ret: u64) -> String {
        let frame = unwind::Frame::returning_to(Addr::new(ret));
        let frames: Vec<_> = self.names(frame.raw()).collect();
        self.line(&frames)
    }
}

fn freer(ret: u64, calls: &Calls) -> Option<Freer> {
    let frame = unwind::Frame::returning_to(Addr::new(ret));
    let called = calls.before(frame.address());
    Freer::of(calls.inside(frame.lookup()).as_deref(), called.as_deref())
}

/// What is called where, by symbols; files are read once for each place.
struct Calls<'a> {
    target: &'a Target,
    before: RefCell<HashMap<Addr, Option<Rc<str>>>>,
    inside: RefCell<HashMap<Addr, Option<Rc<str>>>>,
}

impl<'a> Calls<'a> {
    fn of(target: &'a Target) -> Calls<'a> {
        Calls {
            target,
            before: RefCell::default(),
            inside: RefCell::default(),
        }
    }

    /// The function that is called right before `ret`.
    fn before(&self, ret: Addr) -> Option<Rc<str>> {
        let mut known = self.before.borrow_mut();
        let find = || {
            let module = self.module_at(ret)?;
            module.file().called_before(module.svma(ret)).map(Rc::from)
        };
        known.entry(ret).or_insert_with(find).clone()
    }

    /// The function that `at` is in.
    fn inside(&self, at: Addr) -> Option<Rc<str>> {
        let mut known = self.inside.borrow_mut();
        let find = || {
            let module = self.module_at(at)?;
            let symbol = module.file().symbol_at(module.svma(at))?;
            Some(Rc::from(symbol.name))
        };
        known.entry(at).or_insert_with(find).clone()
    }

    fn module_at(&self, at: Addr) -> Option<&'a Module> {
        self.target.process().modules().module_at(at)
    }
}

/// The families of whose blocks so many were not seen to be allocated, and how many.
fn unseen(judged: &[(&Misfree, Wrong)]) -> BTreeMap<FamilyId, usize> {
    let mut kinds = BTreeMap::<_, Vec<_>>::new();
    for (misfree, _) in judged.iter().filter(|(_, wrong)| wrong.is_unseen()) {
        let earlier = misfree.earlier.map(|earlier| earlier.stack);
        let of_family = kinds.entry(misfree.key.family()).or_default();
        of_family.push((misfree.stack, earlier));
    }
    let counted = kinds.into_iter().filter_map(|(family, kinds)| {
        let distinct: HashSet<_> = kinds.iter().collect();
        (distinct.len() >= UNSEEN).then_some((family, kinds.len()))
    });
    counted.collect()
}
