//! The agent: what detours run inside the target.
//!
//! Built by build.rs into a flat image, see `blob.ld`. The rules that all code here keeps:
//! no libc, no allocation, nothing that can panic (the handler below does not exist: the link
//! fails), no static but the header page, no vector register (a program with a misaligned stack,
//! or one that keeps more in a vector register than the ABI lets it, is not ours to break), little
//! stack (a signal handler may have 2 KiB), and no read that can fault.
#![no_std]

mod agent;
mod call;
mod changes;
mod entry;
mod frees;
mod kernel;
#[path = "../src/layout.rs"]
#[allow(dead_code, reason = "half of it is for the tracer")]
mod layout;
#[path = "../src/mapping.rs"]
#[allow(dead_code, reason = "reading is for the tracer")]
mod mapping;
mod mappings;
#[path = "../src/moving.rs"]
mod moving;
mod nesting;
#[path = "../src/primitive.rs"]
mod primitive;
#[path = "../src/published.rs"]
#[allow(dead_code, reason = "publishing is for the tracer")]
mod published;
#[path = "../src/queue.rs"]
#[allow(dead_code, reason = "reading is for the tracer")]
mod queue;
mod realloc;
mod record;
mod rules;
mod stack;
#[path = "../src/tally.rs"]
#[allow(dead_code, reason = "reading is for the tracer")]
mod tally;
mod unreturned;

unsafe extern "C" {
    /// Defined nowhere, so that code that may panic does not link.
    fn leaktap_the_agent_must_not_panic() -> !;
}

#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    // SAFETY: never linked.
    unsafe { leaktap_the_agent_must_not_panic() }
}
