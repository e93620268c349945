mod addresses;
mod breakpoint;
mod call_sites;
mod calls;
mod instructions;
mod registers;
pub mod signal_frame;
pub mod system_calls;

pub use addresses::USER_END;
pub use breakpoint::{BREAKPOINT, breakpoint_before};
pub use call_sites::{
    CALL_SITE_LEN, Callee, DIRECT_LEN, LINKAGE_LEN, LONGEST_CALL, called_before, direct_branch,
    ends_with_call, linkage_word,
};
pub use calls::{ARGUMENTS, RED_ZONE, RETURN_LEN};
pub use instructions::{
    CALL, CALL_BY_WORD, ENDBR64, JUMP, JUMP_BY_WORD, LONGEST, PUSH, RET, START_CONTEXT,
    addresses_loaded,
};
pub use registers::Registers;
