//! What a detour of each function does.

use leaktap_agent::Shape;
use leaktap_agent::layout::Action as Told;

use crate::functions::{Action, Function, FunctionId, Size};

/// How calls of a function go through the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) shape: Shape,
    pub(crate) action: Told,
}

/// What is called in the place of a throwing operator new, where `twin` proves that it is the same.
const TWIN: &str = "malloc";

/// Throwing forms of operator new that take a size alone. (Those with an alignment have no such
/// twin.)
const THROWING: [&str; 2] = ["_Znwm", "_Znam"];
const THROWING_ALIGNED: [&str; 2] = ["_ZnwmSt11align_val_t", "_ZnamSt11align_val_t"];

/// True of a function that may throw.
pub(crate) fn throws(function: FunctionId) -> bool {
    only_throws(function) || is_named(function, &THROWING)
}

/// True of one of these that has no twin.
pub(crate) fn only_throws(function: FunctionId) -> bool {
    is_named(function, &THROWING_ALIGNED)
}

/// True of the twin.
pub(crate) fn is_twin(function: FunctionId) -> bool {
    is_named(function, &[TWIN])
}

fn is_named(function: FunctionId, names: &[&str]) -> bool {
    function
        .function()
        .is_some_and(|known| names.contains(&known.name))
}

/// How a function goes through the agent.
pub(crate) fn way(function: &Function) -> Way {
    let around = |action| Way {
        shape: Shape::Around,
        action,
    };
    let gate = |action| Way {
        shape: Shape::Gate,
        action,
    };
    match function.action {
        Action::Allocate(size) if THROWING.contains(&function.name) => Way {
            shape: Shape::AroundThrowing,
            action: sized(Told::ALLOCATE, size).by_twin(),
        },
        Action::Allocate(size) => around(sized(Told::ALLOCATE, size)),
        Action::AllocateInto(size) => around(sized(Told::ALLOCATE_INTO, size)),
        Action::Reallocate(size) => around(sized(Told::REALLOCATE, size)),
        // Nothing that free itself calls is another function that frees; of the others it may be.
        Action::Free if function.name == "free" => Way {
            shape: Shape::Before,
            ..around(Told::FREE)
        },
        Action::Free => around(Told::FREE),
        Action::Map => gate(Told::MAP_AT),
        Action::Unmap | Action::Remap => gate(Told::UNMAP),
        Action::SetBreak | Action::MoveBreak | Action::Protect => gate(Told::MAP),
    }
}

fn sized(action: Told, size: Size) -> Told {
    match size {
        Size::Argument(i) => action.sized(i as u32),
        Size::Product(i, j) => action.product(i as u32, j as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::functions::all;

    #[test]
    fn functions_that_map_memory_have_gates_and_no_others() {
        for (_, function) in all() {
            let has_gate = way(function).shape == Shape::Gate;
            assert_eq!(has_gate, function.action.is_mapping());
            // What a breakpoint tells the agent of, a gate has to.
            let unmaps = |flags| function.action.unmaps(|_| flags).is_some();
            let told = way(function).action;
            assert_eq!(told == Told::UNMAP, unmaps(2));
            assert_eq!(told == Told::UNMAP || told == Told::MAP_AT, unmaps(0x10));
        }
    }

    #[test]
    fn sizes_are_told_as_they_are_known() {
        let arguments = [6, 7, 8];
        for (_, function) in all() {
            let known = match function.action {
                Action::Allocate(size) | Action::AllocateInto(size) | Action::Reallocate(size) => {
                    size.of(&arguments)
                }
                _ => continue,
            };
            let told = way(function).action.size(&arguments);
            assert_eq!(told, known, "{}", function.name);
        }
    }
}
