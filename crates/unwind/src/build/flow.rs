//! What is known of the frame at each instruction of code that call frame information says nothing
//! of, from the code itself.
//!
//! From the first instruction of each function that is known, all ways are followed. A function
//! from which one leads to a return with rsp elsewhere than at the return address is not understood
//! and refused. Two kinds of code cannot be reached so: the arms of a jump through a table, which
//! are taken for what no way leads to behind it; and functions that are called through pointers
//! alone, which are taken for what is left between functions, if it holds together.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use super::arch::{Read, Reader, Then};
use super::frame_state::State;

/// No state, or no function: in the place of a number.
pub(super) const NONE: u32 = 0;

/// Compilers begin functions at multiples of this, mostly.
const ALIGNED: u32 = 16;

/// Code without call frame information, and what has been found out about it.
pub(super) struct Hole {
    /// First byte, counted from the module's base.
    start: u32,
    bytes: Vec<u8>,
    /// By byte: the number of the state, if an instruction begins there, and its function.
    pub(super) at: Vec<(u32, u32)>,
    /// By byte: whether a function is known to begin there.
    begins: Vec<bool>,
}

/// A function.
#[derive(Default)]
pub(super) struct Function {
    /// Nothing is known to begin there, so it may be something else.
    pub(super) is_guess: bool,
    /// It does not hold together.
    pub(super) is_refused: bool,
    /// It returns to its caller, or ends as another function does.
    pub(super) returns: bool,
    /// What holds where it jumps through a table.
    pub(super) jumps: Option<Option<State>>,
}

impl Function {
    fn known(&self, state: State) -> Known {
        match (self.is_guess, self.is_refused) {
            (true, _) if self.is_refused || !self.returns => Known::Nothing,
            (_, true) => Known::Refused,
            _ => Known::State(state),
        }
    }
}

/// An instruction that something leads to.
pub(super) type Place = (usize, usize);

pub(super) struct Flow {
    pub(super) base: u64,
    pub(super) holes: Vec<Hole>,
    pub(super) reader: Reader,
    /// All states there are, and their numbers.
    states: Vec<State>,
    numbers: HashMap<State, u32>,
    /// The number that was asked for last.
    last: u32,
    pub(super) functions: Vec<Function>,
    /// What may be some: labels, and addresses that are taken.
    pub(super) labels: BTreeSet<u32>,
    left: Vec<Place>,
    /// Where calls return to, or other functions begin; what would hold, and the caller.
    pub(super) doubtful: Vec<(Place, State, u32)>,
    /// Of such places, those that are known to be of the caller, or not to be.
    pub(super) decided: HashMap<Place, bool>,
    /// Instructions that may be followed before there are no more guesses: each may go through all
    /// code anew.
    pub(super) left_for_guesses: usize,
}

/// How often all code may be gone through.
const MOST_GUESSES: usize = 16;

/// What holds from an instruction on.
pub(super) enum Known {
    /// That.
    State(State),
    /// Nothing that can be relied on.
    Refused,
    /// It is not known what is there.
    Nothing,
}

impl Flow {
    pub(super) fn new(base: u64, holes: Vec<(u32, Vec<u8>)>) -> Flow {
        let bytes: usize = holes.iter().map(|(_, bytes)| bytes.len()).sum();
        let hole = |(start, bytes): (u32, Vec<u8>)| Hole {
            start,
            at: vec![(NONE, NONE); bytes.len()],
            begins: vec![false; bytes.len()],
            bytes,
        };
        Flow {
            base,
            holes: holes.into_iter().map(hole).collect(),
            reader: Reader::new(),
            states: vec![State::ENTRY],
            numbers: HashMap::new(),
            last: NONE,
            functions: vec![Function::default()],
            labels: BTreeSet::new(),
            left: Vec::new(),
            doubtful: Vec::new(),
            decided: HashMap::new(),
            left_for_guesses: bytes.saturating_mul(MOST_GUESSES),
        }
    }

    /// A function begins `at`; `state` holds there.
    pub(super) fn start(&mut self, at: u32, state: State) {
        let Some(place) = self.place(at).filter(|place| !self.begins(*place)) else {
            return;
        };
        let (hole, offset) = place;
        let begins = self
            .holes
            .get_mut(hole)
            .and_then(|hole| hole.begins.get_mut(offset));
        if let Some(begins) = begins {
            *begins = true;
        }
        let function = self.function(false);
        self.put(place, state, function);
    }

    /// A function may begin `at`.
    pub(super) fn label(&mut self, at: u32) {
        if self.place(at).is_some() {
            self.labels.insert(at);
        }
    }

    /// Finds out what there is to be found out.
    pub(super) fn run(&mut self) {
        self.find_called();
        self.settle(0);
        for hole in 0..self.holes.len() {
            self.fill(hole);
        }
    }

    /// Each hole: where it is, and from where in it on what is known.
    pub(super) fn found(&self) -> impl Iterator<Item = (Range<u32>, Vec<(u32, Known)>)> + '_ {
        self.holes.iter().map(|hole| {
            let range = hole.start..hole.start.saturating_add(hole.bytes.len() as u32);
            (range, self.found_in(hole))
        })
    }

    fn found_in(&self, hole: &Hole) -> Vec<(u32, Known)> {
        let mut reader = Reader::new();
        let mut known = vec![(hole.start, Known::Nothing)];
        let mut end = 0;
        for (offset, &(state, function)) in hole.at.iter().enumerate() {
            let Some(state) = self.states.get(state as usize).filter(|_| state != NONE) else {
                if offset == end {
                    known.push((hole.start + offset as u32, Known::Nothing));
                }
                continue;
            };
            let Some(of) = self.functions.get(function as usize) else {
                continue;
            };
            known.push((hole.start + offset as u32, of.known(*state)));
            let read = hole.read(&mut reader, offset, self.base);
            end = offset + read.map_or(1, |read| read.len());
        }
        known
    }

    /// Goes through all code once, for the functions that it calls.
    fn find_called(&mut self) {
        let (mut called, mut taken) = (Vec::new(), Vec::new());
        for hole in &self.holes {
            let mut offset = 0;
            while offset < hole.bytes.len() {
                let read = hole.read(&mut self.reader, offset, self.base);
                offset += read.as_ref().map_or(1, Read::len);
                let Some(read) = read else { continue };
                if let Then::Call(Some(at)) = read.then() {
                    called.extend(self.offset(at));
                }
                taken.extend(read.address_taken().and_then(|at| self.offset(at)));
            }
        }
        called
            .into_iter()
            .for_each(|at| self.start(at, State::ENTRY));
        taken.into_iter().for_each(|at| self.label(at));
    }

    /// Follows all ways from what has been put. Returns when there are none left.
    pub(super) fn follow(&mut self) {
        while let Some((hole, offset)) = self.left.pop() {
            self.left_for_guesses = self.left_for_guesses.saturating_sub(1);
            let Some(code) = self.holes.get(hole) else {
                continue;
            };
            let Some(&(number, function)) = code.at.get(offset) else {
                continue;
            };
            if self.is_given_up(function) {
                continue;
            }
            let Some(read) = code.read(&mut self.reader, offset, self.base) else {
                self.refuse(function);
                continue;
            };
            let before = self.state(number);
            let (next, then) = ((hole, offset + read.len()), read.then());
            if let Then::Jump(to) | Then::Branch(to) = then {
                let after = self.reader.after(&read, before, true);
                self.lead(self.offset(to), after, function);
            }
            match then {
                Then::Next | Then::Branch(_) => {
                    let after = self.reader.after(&read, before, false);
                    self.go_on(next, after, function);
                }
                Then::Call(_) => {
                    let after = self.reader.after(&read, before, false);
                    self.returned(next, after, function);
                }
                Then::Return => self.returns(function, before),
                Then::Somewhere => self.jumps(function, before),
                Then::Jump(_) | Then::Stop => {}
            }
        }
    }

    /// A way leads to `at`.
    fn lead(&mut self, at: Option<u32>, state: State, function: u32) {
        match at.and_then(|at| self.place(at)) {
            // To another function, as if that were called by the caller; or in a circle.
            Some(place) if self.begins(place) => self.returns(function, state),
            Some(place) => self.put(place, state, function),
            None => {}
        }
    }

    /// A way leads on to `next`.
    fn go_on(&mut self, next: Place, state: State, function: u32) {
        if !self.begins(next) {
            self.put(next, state, function);
        }
    }

    /// A call returns to `next`, if it does: what it calls may never return, and what is there may
    /// be another function.
    fn returned(&mut self, next: Place, state: State, function: u32) {
        let behind = self.behind_padding(next);
        if self.begins(behind) || self.labels.contains(&self.at(behind)) {
            return;
        }
        let may_begin = behind != next || self.at(behind).is_multiple_of(ALIGNED);
        match may_begin && state != State::ENTRY {
            true => self.doubtful.push((behind, state, function)),
            false => self.put(behind, state, function),
        }
    }

    /// The first instruction from `place` on that does something.
    fn behind_padding(&mut self, (hole, mut offset): Place) -> Place {
        while let Some(code) = self.holes.get(hole)
            && let Some(read) = code.read(&mut self.reader, offset, self.base)
            && read.is_padding()
        {
            offset += read.len();
        }
        (hole, offset)
    }

    /// A way of `function` leads to `place`, where `state` holds.
    pub(super) fn put(&mut self, place: Place, state: State, function: u32) {
        let (hole, offset) = place;
        let Some((mut number, owner)) = self.found_at(place) else {
            return;
        };
        if self.is_given_up(function) {
            return;
        }
        if number != NONE && owner != function && self.is_guess(function) {
            match self.state(number) == state {
                true => self.returns(function, State::ENTRY),
                false => self.refuse(function),
            }
            return;
        }
        if number != NONE && owner != function && self.is_guess(owner) {
            match self.state(number) == state {
                true => return,
                false => self.refuse(owner),
            }
            number = NONE;
        }
        let (state, function) = match number {
            NONE => (state, function),
            _ => (self.state(number).join(state), owner),
        };
        let new = self.number(state);
        if new != number
            && let Some(known) = self
                .holes
                .get_mut(hole)
                .and_then(|hole| hole.at.get_mut(offset))
        {
            *known = (new, function);
            self.left.push(place);
        }
    }

    /// A function returns where `state` holds, itself or by another one that it ends with.
    fn returns(&mut self, function: u32, state: State) {
        let may_return = match self.is_guess(function) {
            true => state.returns(),
            false => state.may_return(),
        };
        if !may_return {
            self.refuse(function);
        } else if let Some(function) = self.functions.get_mut(function as usize) {
            function.returns = true;
        }
    }

    /// The number of the state at `place`, and whose it is; no number where nothing is known.
    pub(super) fn found_at(&self, (hole, offset): Place) -> Option<(u32, u32)> {
        let (number, owner) = self.holes.get(hole)?.at.get(offset).copied()?;
        match self.is_given_up(owner) {
            true => Some((NONE, NONE)),
            false => Some((number, owner)),
        }
    }

    /// Whether it was taken for a function, and is none.
    fn is_given_up(&self, function: u32) -> bool {
        let function = self.functions.get(function as usize);
        function.is_some_and(|function| function.is_guess && function.is_refused)
    }

    fn is_guess(&self, function: u32) -> bool {
        let function = self.functions.get(function as usize);
        function.is_some_and(|function| function.is_guess)
    }

    /// A function jumps somewhere.
    fn jumps(&mut self, function: u32, state: State) {
        let is_call_of_other = state == State::ENTRY;
        if let Some(function) = self.functions.get_mut(function as usize) {
            function.jumps = match function.jumps {
                Some(Some(before)) if is_call_of_other => Some(Some(before)),
                Some(Some(before)) if before != state && before != State::ENTRY => Some(None),
                Some(None) => Some(None),
                _ => Some(Some(state)),
            };
        }
    }

    fn refuse(&mut self, function: u32) {
        if let Some(function) = self.functions.get_mut(function as usize) {
            function.is_refused = true;
        }
    }

    pub(super) fn function(&mut self, is_guess: bool) -> u32 {
        self.functions.push(Function {
            is_guess,
            ..Function::default()
        });
        (self.functions.len() - 1) as u32
    }

    fn begins(&self, (hole, offset): Place) -> bool {
        let hole = self.holes.get(hole);
        hole.and_then(|hole| hole.begins.get(offset).copied())
            .unwrap_or(false)
    }

    pub(super) fn state(&self, number: u32) -> State {
        self.states
            .get(number as usize)
            .copied()
            .unwrap_or(State::ENTRY)
    }

    fn number(&mut self, state: State) -> u32 {
        if self.state(self.last) == state && self.last != NONE {
            return self.last;
        }
        let states = &mut self.states;
        self.last = *self.numbers.entry(state).or_insert_with(|| {
            states.push(state);
            (states.len() - 1) as u32
        });
        self.last
    }

    fn offset(&self, at: u64) -> Option<u32> {
        at.checked_sub(self.base)?.try_into().ok()
    }

    pub(super) fn at(&self, (hole, offset): Place) -> u32 {
        let start = self.holes.get(hole).map_or(0, |hole| hole.start);
        start.saturating_add(offset as u32)
    }

    fn place(&self, at: u32) -> Option<Place> {
        let after = self.holes.partition_point(|hole| hole.start <= at);
        let index = after.checked_sub(1)?;
        let hole = self.holes.get(index)?;
        let offset = (at - hole.start) as usize;
        (offset < hole.bytes.len()).then_some((index, offset))
    }
}

impl Hole {
    pub(super) fn read(&self, reader: &mut Reader, offset: usize, base: u64) -> Option<Read> {
        let at = base
            .wrapping_add(u64::from(self.start))
            .wrapping_add(offset as u64);
        reader.read(self.bytes.get(offset..)?, at)
    }
}
