//! What a detour of each function does.

use leaktap_agent::Shape;
use leaktap_agent::layout::ARGUMENTS;
use leaktap_api::{Action, Function};

/// What is called in the place of a throwing operator new that takes a size alone, where `twin`
/// proves that it is the same. (Those with an alignment have no such twin.)
pub(crate) const TWIN: &str = "malloc";

/// True of a throwing function that has a twin.
pub(crate) fn may_have_twin(action: Action) -> bool {
    action.throws() && action == Action::ALLOCATE.sized(0).takes(1).throwing()
}

/// How calls of a function go through the agent. Nothing if they cannot: the agent keeps too few
/// arguments to tell what a call does.
pub(crate) fn way(function: &Function) -> Option<Shape> {
    let action = function.action;
    if action.is_mapping() {
        return Some(match action.shape() {
            Action::PROTECT | Action::LOCK => Shape::Gate,
            Action::CHANGE_MODULES => Shape::Change,
            _ => Shape::FullAround,
        });
    }
    if !action.is_told_by(ARGUMENTS) {
        return None;
    }
    if may_have_twin(action) {
        return Some(Shape::AroundThrowing);
    }
    let lean = match &*function.name {
        // Nothing that free itself calls is another function that frees; of the others it may be.
        "free" => Shape::Before,
        _ => Shape::Around,
    };
    // A lean detour keeps no other register than its call's.
    Some(match action.arguments() <= ARGUMENTS {
        true => lean,
        false => lean.full(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leaktap_api::Functions;

    #[test]
    fn functions_that_map_memory_have_full_detours_and_two_have_a_gate() {
        for (_, function) in Functions::default().standard() {
            let shape = way(function).expect("the agent keeps what it needs");
            let asks = ["mprotect", "mlockall"].contains(&&*function.name);
            assert_eq!(shape == Shape::Gate, asks);
            assert!(shape.is_full() || !function.action.is_mapping());
        }
    }

    #[test]
    fn what_takes_more_arguments_than_a_call_keeps_has_a_full_detour() {
        let functions = Functions::default();
        let shape = |name: &str| {
            let mut all = functions.all();
            let (_, function) = all.find(|(_, known)| known.name == name)?;
            way(function)
        };
        for (name, expected) in [
            ("free", Some(Shape::Before)),
            ("sdallocx", Some(Shape::Around)),
            ("_Znam", Some(Shape::AroundThrowing)),
            ("_ZnwmSt11align_val_t", Some(Shape::Around)),
            ("xallocx", Some(Shape::FullAround)),
            ("mi_heap_recalloc", None),
        ] {
            assert_eq!(shape(name), expected, "{name}");
        }
    }
}
