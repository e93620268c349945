//! Walks of a stopped thread's stack, from a copy of it made in one system call.

use std::ops::{ControlFlow, Range};

use leaktap_api::{Caller, Place, Reach};
use leaktap_arch::RETURN_LEN;
use leaktap_memory::{Addr, ReadMemory, StackOverlay};
use leaktap_tracee::Memory;
use leaktap_unwind::{self as unwind, End, Frame, Rules, Start, Table};

use crate::record::Stack;

/// Most frames of a stack that can be asked for.
pub const MAX_DEPTH: usize = 256;

/// Bytes of stack copied at first; later, as many as the deepest walk so far has used.
const FIRST_COPY: usize = 2 << 10;
const LARGEST_COPY: usize = 64 << 10;

/// Copies stacks and walks them.
#[derive(Debug)]
pub(crate) struct Walker {
    copy: Vec<u8>,
    wanted: usize,
    frames: Vec<Frame>,
    /// Where code is whose frames are left out: the agent's.
    hidden: Vec<Range<Addr>>,
}

impl Walker {
    /// A walker that keeps at most `depth` frames of a stack.
    pub(crate) fn new(depth: usize) -> Walker {
        let depth = depth.clamp(1, MAX_DEPTH);
        Walker {
            copy: vec![0; LARGEST_COPY],
            wanted: FIRST_COPY,
            frames: vec![Frame::from_raw(0); depth],
            hidden: Vec::new(),
        }
    }

    /// Leaves the frames of code in `ranges` out.
    pub(crate) fn hide(&mut self, ranges: &[Range<Addr>]) {
        self.hidden = ranges.to_vec();
    }

    /// Most frames that are kept of a stack.
    pub(crate) fn depth(&self) -> usize {
        self.frames.len()
    }

    /// The stack of a thread that has just returned to `start.ip`.
    pub(crate) fn walk(&mut self, memory: &Memory, rules: &mut Table, start: Start) -> Stack<'_> {
        let len = memory.read_partial(start.sp, &mut self.copy[..self.wanted]);
        let mut used = 0;
        let mut depth = 0;
        let overlay = StackOverlay::new(start.sp, &self.copy[..len], memory);
        let frames = &mut self.frames;
        let hidden = &self.hidden;
        let end = unwind::walk_with(start, &overlay, rules, |visited| {
            let lookup = visited.frame.lookup();
            if hidden.iter().any(|range| range.contains(&lookup)) {
                return ControlFlow::Continue(());
            }
            let Some(free) = frames.get_mut(depth) else {
                return ControlFlow::Break(());
            };
            *free = visited.frame;
            depth += 1;
            used = visited.sp.offset_from(start.sp).unwrap_or(0);
            ControlFlow::Continue(())
        });
        self.want(used);
        Stack {
            frames: &self.frames[..depth],
            end,
        }
    }

    /// The callers of a call that goes on at `start`.
    pub(crate) fn callers<'a>(
        &'a mut self,
        memory: &'a Memory,
        rules: &'a mut Table,
        start: Start,
    ) -> Callers<'a> {
        Callers {
            walker: self,
            memory,
            rules,
            start,
        }
    }

    /// The outermost frame has been read, too: what it needs of the stack is above `used`.
    fn want(&mut self, used: u64) {
        let used = usize::try_from(used).map_or(LARGEST_COPY, |used| used.saturating_add(512));
        if used > self.wanted {
            self.wanted = used.next_multiple_of(1 << 10).min(LARGEST_COPY);
        }
    }
}

/// The callers of a call, for what the api crate decides of it.
pub(crate) struct Callers<'a> {
    walker: &'a mut Walker,
    memory: &'a Memory,
    rules: &'a mut Table,
    start: Start,
}

impl Callers<'_> {
    /// Where the caller of the first one goes on, if a walk gets there.
    pub(crate) fn second(&mut self) -> Option<Addr> {
        let mut places = Vec::new();
        leaktap_api::Stack::walk(self, |caller| {
            places.push(caller.place.ret);
            match places.len() {
                2.. => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        places.get(1).copied().map(Addr::new)
    }
}

impl leaktap_api::Stack for Callers<'_> {
    fn word(&self, at: u64) -> Option<u64> {
        self.memory.read_u64(Addr::new(at)).ok()
    }

    fn walk(&mut self, mut visit: impl FnMut(Caller) -> ControlFlow<()>) -> Reach {
        let Walker { copy, wanted, .. } = &mut *self.walker;
        let len = self
            .memory
            .read_partial(self.start.sp, &mut copy[..*wanted]);
        let overlay = StackOverlay::new(self.start.sp, &copy[..len], self.memory);
        let mut outermost = Frame::returning_to(self.start.ip);
        let end = unwind::walk_with(self.start, &overlay, &mut *self.rules, |visited| {
            outermost = visited.frame;
            visit(Caller {
                place: Place {
                    sp: visited.sp.wrapping_offset(-(RETURN_LEN as i64)).get(),
                    ret: visited.frame.address().get(),
                },
                signal: visited.signal,
            })
        });
        match end {
            End::TooDeep => Reach::Stopped,
            // What the code alone says may be wrong, and without that, a frame pointer of 0 need
            // not mean the root: musl's code has no frame pointers.
            End::Root if self.rules.rule(outermost.lookup()).is_described() => Reach::Root,
            _ => Reach::BrokeOff,
        }
    }
}

/// Where a walk starts for a function at whose first instruction a thread is: at its caller.
pub(crate) fn caller(ret: Addr, entry_sp: Addr, bp: u64) -> Start {
    Start {
        ip: ret,
        sp: entry_sp.wrapping_offset(RETURN_LEN as i64),
        bp,
    }
}
