use std::vec::Vec;

use super::*;

/// Callers, innermost first; counts those that are shown.
struct Known {
    callers: Vec<Caller>,
    reach: Reach,
    shown: usize,
}

impl Stack for Known {
    fn word(&self, at: u64) -> Option<u64> {
        let found = self.callers.iter().find(|caller| caller.place.sp == at);
        Some(found?.place.ret)
    }

    fn walk(&mut self, mut visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach {
        for caller in &self.callers {
            self.shown += 1;
            if visit(*caller).is_break() {
                return Reach::Stopped;
            }
        }
        self.reach
    }
}

const OUTER: Place = place(0x1000);

const fn place(sp: u64) -> Place {
    Place { sp, ret: 0x40 }
}

fn known(places: &[(u64, bool)], reach: Reach) -> Known {
    let caller = |&(sp, signal): &(u64, bool)| Caller {
        place: place(sp),
        signal,
    };
    Known {
        callers: places.iter().map(caller).collect(),
        reach,
        shown: 0,
    }
}

fn innermost(state: State) -> Innermost {
    Innermost {
        place: OUTER,
        state,
        may_jump: false,
        is_foreign: false,
    }
}

fn of(entered: Entered, innermost: Innermost, stack: &mut Known) -> Standing {
    let is_call = |place| place == OUTER || place == self::place(0x2000);
    standing(entered, innermost, is_call, None::<&mut Nested<0>>, stack)
}

fn found(sp: u64, callers: &[(u64, bool)], reach: Reach, state: State) -> Standing {
    let entered = Entered {
        place: place(sp),
        by_program: false,
    };
    of(entered, innermost(state), &mut known(callers, reach))
}

#[test]
fn the_first_call_that_a_walk_meets_decides() {
    use Standing::{Alone, PartOf, Within};
    use State::{Busy, Runs};
    let (call, interrupted) = ((0x1000, false), (0x1000, true));
    let (handler, earlier) = ((0xf80, true), (0x2000, false));
    let over = Alone { is_certain: true };
    for (what, sp, callers, state, expected) in [
        ("called", 0xf00, &[call][..], Runs, PartOf(0x1000)),
        ("handler", 0xf00, &[handler, call], Runs, Within(0x1000)),
        ("interrupted", 0xf00, &[interrupted], Runs, PartOf(0x1000)),
        ("the agent was", 0xf00, &[call], Busy, Within(0x1000)),
        ("by longjmp", 0xf00, &[earlier], Runs, PartOf(0x2000)),
        ("all left", 0xf00, &[(0x3000, false)], Runs, over),
        ("same place", 0x1000, &[call], Runs, over),
    ] {
        assert_eq!(found(sp, callers, Reach::Root, state), expected, "{what}");
    }
}

#[test]
fn where_a_walk_breaks_off_stack_pointers_decide() {
    use Standing::{Alone, PartOf, Within};
    use State::{Busy, MayBeOver, Runs, Under};
    let (below, above) = (0xf00, 0x1100);
    let over = |same_block| MayBeOver { same_block };
    let alone = Alone { is_certain: false };
    for (sp, state, expected) in [
        (below, Runs, PartOf(0x1000)),
        (above, Runs, alone),
        (below, Busy, Within(0x1000)),
        (below, Under, PartOf(0x1000)),
        (above, Under, Within(0x1000)),
        (below, over(false), alone),
        (below, over(true), PartOf(0x1000)),
    ] {
        let found = found(sp, &[], Reach::BrokeOff, state);
        assert_eq!(found, expected, "{sp:#x} {state:?}");
    }
}

#[test]
fn a_call_by_the_program_is_its_own_and_a_jump_is_no_call() {
    let mut stack = known(&[(0x1000, false)], Reach::Root);
    let by_program = Entered {
        place: place(0xf00),
        by_program: true,
    };
    let runs = innermost(State::Runs);
    assert_eq!(of(by_program, runs, &mut stack), Standing::Within(0x1000));
    let jumped = Entered {
        place: OUTER,
        by_program: false,
    };
    let other = Innermost {
        may_jump: true,
        ..runs
    };
    assert_eq!(of(jumped, other, &mut stack), Standing::PartOf(0x1000));
}

const TOP: u64 = 1 << 40;

/// A stack of so many frames above the one that is entered; counts those that are shown.
struct Deep {
    frames: u64,
    shown: u64,
}

impl Stack for Deep {
    fn word(&self, _: u64) -> Option<u64> {
        Some(place(TOP).ret)
    }

    fn walk(&mut self, mut visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach {
        for frame in (0..self.frames).rev() {
            self.shown += 1;
            let caller = Caller {
                place: at(frame),
                signal: false,
            };
            if visit(caller).is_break() {
                return Reach::Stopped;
            }
        }
        Reach::Root
    }
}

fn at(frame: u64) -> Place {
    place(TOP - 16 * frame)
}

/// Frames that are walked for a call at each of `depths`, in a call at frame 0.
fn walked(nested: &mut Nested<128>, depths: impl Iterator<Item = u64>) -> u64 {
    let mut shown = 0;
    for frames in depths {
        let mut stack = Deep { frames, shown: 0 };
        let entered = Entered {
            place: at(frames),
            by_program: false,
        };
        let runs = Innermost {
            place: at(0),
            ..innermost(State::Runs)
        };
        let is_call = |place| place == at(0);
        let found = standing(entered, runs, is_call, Some(&mut *nested), &mut stack);
        assert_eq!(found, Standing::PartOf(TOP));
        shown += stack.shown;
    }
    shown
}

/// Nested calls that are two frames apart, and those that each makes after the one below.
#[test]
fn nested_calls_cost_what_their_number_says_not_its_square() {
    let down_and_up = |depth: u64| {
        let mut nested = Nested::default();
        let down = walked(&mut nested, (1..=depth).map(|call| 2 * call));
        let up = walked(&mut nested, (1..=depth).rev().map(|call| 2 * call + 1));
        (down, up)
    };
    let [one, two, many] = [2_000, 4_000, 100_000].map(down_and_up);
    assert_eq!((one.0, two.0), (4_000, 8_000), "down");
    assert!(
        two.1 <= 5 * one.1 / 2 && one.1 <= 10 * 4_000,
        "{one:?} {two:?}"
    );
    assert!(many.1 <= 12 * 200_000, "{many:?}");
}

#[test]
fn nothing_is_believed_of_nested_calls_once_the_outermost_one_is_overwritten() {
    let mut nested = Nested::<8>::default();
    let entered = |sp| Entered {
        place: place(sp),
        by_program: false,
    };
    let runs = innermost(State::Runs);
    let is_call = |place| place == OUTER;
    let mut stack = known(&[(0x1000, false)], Reach::Root);
    standing(entered(0xf00), runs, is_call, Some(&mut nested), &mut stack);
    let mut left = known(&[(0xf00, false), (0x2000, false)], Reach::Root);
    left.callers.push(Caller {
        place: Place {
            sp: 0x1000,
            ret: 0x41,
        },
        signal: false,
    });
    let found = standing(entered(0xe00), runs, is_call, Some(&mut nested), &mut left);
    assert_eq!(found, Standing::Alone { is_certain: true });
}
