//! Whether an exception can pass a function.

use iced_x86::{Decoder, DecoderOptions, FlowControl, Instruction, OpKind};
use leaktap_image::Module;
use leaktap_memory::{Addr, Svma};

use crate::extents::may_unwind;

/// Whether nothing that is thrown gets past the function at `at` in `module`: nothing in .eh_frame
/// describes it, so that the search for a handler ends there (Itanium C++ ABI, 1.3:
/// `_URC_END_OF_STACK`), and it goes on to no other function without its own frame. Chromium's
/// operators are such.
pub(super) fn ends_at(module: &Module, at: Addr) -> bool {
    let start = module.svma(at);
    let symbol = module.file().symbol_at(start);
    let symbol = symbol.filter(|symbol| symbol.svma == start);
    let Some(len) = symbol.and_then(|symbol| usize::try_from(symbol.size).ok()) else {
        return false;
    };
    let all = start..Svma(start.0.saturating_add(len as u64));
    let code = module.file().bytes_at(start, len).unwrap_or_default();
    let is_inside = |target: u64| target.wrapping_sub(start.0) < len as u64;
    let mut instructions = Decoder::with_ip(64, &code, start.0, DecoderOptions::NONE);
    let mut instructions = instructions.iter();
    !code.is_empty()
        && !may_unwind(module, &all)
        && instructions.all(|instruction| !leaves(&instruction, is_inside))
}

/// Whether it may go on elsewhere, and not come back.
fn leaves(instruction: &Instruction, is_inside: impl Fn(u64) -> bool) -> bool {
    let is_far = || {
        instruction.op0_kind() != OpKind::NearBranch64
            || !is_inside(instruction.near_branch_target())
    };
    match instruction.flow_control() {
        FlowControl::IndirectBranch | FlowControl::Exception => true,
        FlowControl::UnconditionalBranch | FlowControl::ConditionalBranch => is_far(),
        _ => instruction.is_invalid(),
    }
}
