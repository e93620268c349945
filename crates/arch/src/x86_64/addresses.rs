/// User addresses end here, with five levels of page tables
/// (`Documentation/arch/x86/x86_64/5level-paging.rst`).
pub const USER_END: u64 = 1 << 56;
