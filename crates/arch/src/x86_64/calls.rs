//! How functions are called (System V psABI, 3.2).

/// How many integer arguments are passed in registers.
pub const ARGUMENTS: usize = 6;

/// Bytes of a return address. A call pushes it: it is at sp when a function is entered, and right
/// below sp when it has returned.
pub const RETURN_LEN: u64 = 8;

/// Below sp, the bytes that a function may use without moving it.
pub const RED_ZONE: u64 = 128;
