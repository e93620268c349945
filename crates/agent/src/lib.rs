//! The code that leaktap injects into a target, and what it shares with the tracer.
//!
//! With optimised probes, this is the first stage of the data path: a detour enters the agent,
//! which takes the stack, enters the block into the ledger, and goes on; no thread stops. The agent
//! itself is in `blob/`, built by build.rs into a position independent image without a libc:
//! [`text`]. Not for injecting it: that is the tracer's part, with what this crate knows of the
//! image, the [`layout`] of what is shared, and [`stub()`]s.
//!
//! # What the tracer relies on
//! - The image is [`HEADER_LEN`] bytes of header page, and then code and constants, never written.
//! - The agent reads nothing but its thread's stack, the shared memory and its own code, writes
//!   nothing but the shared memory, and calls nothing but the displaced instructions.
//! - It makes three system calls: process_vm_readv(2) of its own process, for what it cannot be
//!   sure to read otherwise, gettid(2) where threads share an fs base, and futex(2) to wait for the
//!   tracer; and not even these unless [`layout::Live::kernel`] allows it.
//! - It waits for nobody but there, for a second at most.
#![deny(unsafe_code)]

mod counts;
pub mod layout;
#[allow(
    unsafe_code,
    reason = "maps the shared memory, and makes references into it, in this file alone"
)]
mod ledger_map;
pub mod mapping;
pub mod moving;
mod primitive;
#[allow(
    unsafe_code,
    reason = "searches tables in the target, in this file alone"
)]
pub mod published;
pub mod queue;
mod shared;
mod stub;
pub mod tally;

use std::sync::OnceLock;

use leaktap_memory::Svma;

pub use counts::Counts;
pub use shared::{
    CONTROL_AT, KEY_BITS, KEYS_AT, LEDGER_AT, MAPPINGS_AT, REMAINS_AT, REMAINS_LEN, ROOM_AT,
    ROOM_LEN, SHARED_LEN, SUMS_AT, Shared, TABLES, THREADS_AT,
};
pub use stub::{DESCRIPTOR_AT, PUSH_LEN, STUB_LEN, stub};

mod offsets {
    include!(concat!(env!("OUT_DIR"), "/offsets.rs"));
}

/// Length in bytes of the header page, which comes before the text.
pub const HEADER_LEN: u64 = offsets::TEXT;

/// Length in bytes of [`text`].
pub const TEXT_LEN: u64 = TEXT.len() as u64;

/// Offset in the image at which code ends and constants begin.
pub const CONSTANTS: u64 = offsets::CONSTANTS;

static TEXT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/text.bin"));
static EH_FRAME: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/eh_frame.bin"));

/// How a detour goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Calls the original, and looks at its result. Not for functions that may throw.
    Around,
    /// Calls a twin that does not throw, and goes to the throwing original, without a frame, if
    /// that fails.
    AroundThrowing,
    /// For a function that frees: goes on to the original without a frame.
    Before,
    /// As `Around`, and preserves what the function preserves: its callers may know that.
    FullAround,
    /// As `AroundThrowing`, and preserves all but the result.
    FullAroundThrowing,
    /// As `Before`, and preserves what the function preserves.
    FullBefore,
    /// For mprotect(2) and mlockall(2): goes on to the original without a frame. Waits for the
    /// tracer first, if that may have to be gone.
    Gate,
    /// For the dynamic linker's `r_brk`: tells the tracer, waits for it, and returns.
    Change,
}

impl Shape {
    /// Offset in the image of the agent's entry point.
    pub const fn entry(self) -> u64 {
        match self {
            Shape::Around => offsets::AROUND,
            Shape::AroundThrowing => offsets::AROUND_THROWING,
            Shape::Before => offsets::BEFORE,
            Shape::FullAround => offsets::FULL_AROUND,
            Shape::FullAroundThrowing => offsets::FULL_AROUND_THROWING,
            Shape::FullBefore => offsets::FULL_BEFORE,
            Shape::Gate => offsets::GATE,
            Shape::Change => offsets::CHANGE,
        }
    }

    /// The full one of its kind.
    pub const fn full(self) -> Shape {
        match self {
            Shape::Around => Shape::FullAround,
            Shape::AroundThrowing => Shape::FullAroundThrowing,
            Shape::Before => Shape::FullBefore,
            full => full,
        }
    }

    /// Whether all registers are preserved: the stub then pushes what it has to say.
    pub const fn is_full(self) -> bool {
        use Shape::{Around, AroundThrowing, Before};
        !matches!(self, Around | AroundThrowing | Before)
    }
}

/// What a thread at one of the agent's exits is about to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// To call the original: the stack pointer is at a [`layout::Call`], arguments are in place.
    Call,
    /// To go on in the original, whose [`layout::Descriptor`] is in r11: all is as at its entry.
    Pass,
    /// As `Call`; where to is in the word below the stack pointer.
    FullCall,
    /// As `Pass`; where to is in the word below the stack pointer.
    FullPass,
    /// To return to the caller.
    Return,
}

/// Offsets in the image of what a thread leaves the agent by. Behind [`EXIT_LEN`] bytes without an
/// effect is the instruction.
pub const EXITS: [(u64, Exit); 16] = [
    (offsets::AROUND_CALL, Exit::Call),
    (offsets::AROUND_PASS, Exit::Pass),
    (offsets::AROUND_RETURN, Exit::Return),
    (offsets::AROUND_THROWING_CALL, Exit::Call),
    (offsets::AROUND_THROWING_PASS, Exit::Pass),
    (offsets::AROUND_THROWING_RETURN, Exit::Return),
    (offsets::BEFORE_PASS, Exit::Pass),
    (offsets::FULL_AROUND_CALL, Exit::FullCall),
    (offsets::FULL_AROUND_PASS, Exit::FullPass),
    (offsets::FULL_AROUND_RETURN, Exit::Return),
    (offsets::FULL_AROUND_THROWING_CALL, Exit::FullCall),
    (offsets::FULL_AROUND_THROWING_PASS, Exit::FullPass),
    (offsets::FULL_AROUND_THROWING_RETURN, Exit::Return),
    (offsets::FULL_BEFORE_PASS, Exit::FullPass),
    (offsets::GATE_PASS, Exit::FullPass),
    (offsets::CHANGE_RETURN, Exit::Return),
];

/// Offset in the image of the exit of [`Shape::Gate`]: all is as at the function's entry, and in
/// the word below the stack pointer is the address of its displaced instructions.
pub const GATE_PASS: u64 = offsets::GATE_PASS;

/// Bytes of `test al, 0xfe`. With [`SHUT`] in the place of the first, [`OPEN`], a thread stays
/// there until the exit is open again, and nothing happens to it.
pub const EXIT_LEN: u64 = 2;
/// See [`EXIT_LEN`].
pub const OPEN: u8 = 0xa8;
/// See [`EXIT_LEN`]: `jmp $`.
pub const SHUT: u8 = 0xeb;

/// Offsets in the image that an original called by [`Shape::Around`] or [`Shape::FullAround`]
/// returns to, with the stack pointer at a [`layout::Call`].
pub const BACKS: [u64; 2] = [offsets::AROUND_BACK, offsets::FULL_AROUND_BACK];

/// Code and constants of the image, from offset [`HEADER_LEN`] on.
pub fn text() -> &'static [u8] {
    TEXT
}

/// Tells one build of the agent from others (FNV-1a of its text).
pub fn checksum() -> u64 {
    static FOUND: OnceLock<u64> = OnceLock::new();
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    *FOUND.get_or_init(|| TEXT.iter().fold(0xcbf2_9ce4_8422_2325, hash))
}

/// The image's call frame information (`.eh_frame`), and its offset in the image, where it need
/// not be written: rows are made from it for signal handlers that interrupt the agent.
pub fn eh_frame() -> (Svma, &'static [u8]) {
    (Svma(offsets::EH_FRAME), EH_FRAME)
}
