use super::flow::{Flow, NONE, Place};
use super::frame_state::State;

/// How many doubtful places are looked at while one is.
const DEEPEST: usize = 64;

impl Flow {
    /// Follows all ways from what has been put, and decides of what there is doubt about.
    pub(super) fn settle(&mut self, depth: usize) {
        let before = self.doubtful.len();
        self.follow();
        while self.doubtful.len() > before
            && let Some((place, state, function)) = self.doubtful.pop()
        {
            if self.is_callers(place, state, depth) {
                self.put(place, state, function);
            }
            self.follow();
        }
    }

    /// Whether what is at `place`, where a call returns to if it does return, is of the caller,
    /// with `state`. If it is a function, it returns from where it began; if not, that fails, or it
    /// leads to what is known to be otherwise.
    fn is_callers(&mut self, place: Place, state: State, depth: usize) -> bool {
        if let Some((number, _)) = self.found_at(place).filter(|(number, _)| *number != NONE) {
            return self.state(number) == state;
        }
        if depth >= DEEPEST || self.left_for_guesses == 0 {
            return true;
        }
        if let Some(decided) = self.decided.get(&place) {
            return *decided;
        }
        let guess = self.function(true);
        self.put(place, State::ENTRY, guess);
        self.settle(depth + 1);
        let is_refused = |index: u32| {
            let function = self.functions.get(index as usize);
            function.is_some_and(|function| function.is_refused)
        };
        let is_callers = is_refused(guess);
        self.decided.insert(place, is_callers);
        is_callers
    }

    /// Takes what no way leads to for the arms of a jump, or for functions.
    pub(super) fn fill(&mut self, hole: usize) {
        let (mut offset, mut last, mut is_new) = (0, NONE, true);
        while let Some(code) = self.holes.get(hole)
            && offset < code.at.len()
        {
            let Some(read) = code.read(&mut self.reader, offset, self.base) else {
                offset += 1;
                continue;
            };
            let known = self.found_at((hole, offset));
            if known.is_some_and(|(number, _)| number == NONE) && !read.is_padding() {
                self.take((hole, offset), last, is_new);
            }
            let found = self.found_at((hole, offset));
            let found = found.filter(|(number, _)| *number != NONE);
            is_new = found.is_some() || read.is_padding();
            last = found.map_or(last, |(_, function)| function);
            offset += read.len();
        }
    }

    /// Takes what is at `place` for an arm of the function `last`, if that jumps through a table,
    /// or for a function, if it is behind what is known to be code.
    fn take(&mut self, place: Place, last: u32, is_new: bool) {
        let is_label = self.labels.contains(&self.at(place));
        let last_one = self.functions.get(last as usize);
        let jumps = last_one.and_then(|last| last.jumps);
        let jumps = jumps.filter(|state| *state != Some(State::ENTRY));
        match jumps.filter(|_| !is_label) {
            Some(Some(state)) => self.put(place, state, last),
            // There are several.
            Some(None) => {}
            None if is_new => {
                let function = self.function(true);
                if let Some(function) = self.functions.get_mut(function as usize) {
                    // Its address is taken, and it is no arm: it need not return.
                    function.returns = is_label && jumps.is_none();
                }
                self.put(place, State::ENTRY, function);
            }
            None => {}
        }
        self.settle(0);
    }
}
