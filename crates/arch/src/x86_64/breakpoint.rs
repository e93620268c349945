use leaktap_memory::Addr;

/// The instruction that stops a thread for its tracer: int3, of one byte.
pub const BREAKPOINT: u8 = 0xcc;

/// Where the breakpoint is that a thread has hit whose next instruction is at `ip`.
pub const fn breakpoint_before(ip: Addr) -> Addr {
    ip.wrapping_offset(-1)
}
