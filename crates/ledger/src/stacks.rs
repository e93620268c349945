//! The distinct stacks, as a tree: a node is a frame and the node of its caller, so stacks share
//! their outer frames, and a node names a stack.

use core::sync::atomic::Ordering::Acquire;

use crate::Ledger;
use crate::primitive::{FIRST_FRAMES, FIRST_NODES};
use crate::set::{Set, Shape};

/// Four million frames. The first tables are small: what is looked up all the time is then near
/// each other.
pub(crate) const FRAMES: Shape = Shape {
    first_bits: FIRST_FRAMES,
    tables: 10,
    notes: 0,
};

/// 16 million nodes: a [`StackId`] has 24 bits. Each has one more than its frame's index in the
/// upper half, notes, and one more than its caller's index, or 0.
pub(crate) const NODES: Shape = Shape {
    first_bits: FIRST_NODES,
    tables: 8,
    notes: 0xff << 24,
};

/// The caller in a node.
const CALLER: u32 = (1 << 24) - 1;

const _: () = assert!(NODES.slots() <= CALLER);

/// Marks the frame of a root, which no return address has: see [`root`].
const ROOT: u64 = 1 << 62;

/// Frames of the longest stack, and a root, that is read back, should somebody have tied the nodes
/// into a ring.
const DEEPEST: usize = 257;

/// A stack, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

impl StackId {
    /// Numbers are below this.
    pub const MOST: usize = NODES.slots() as usize;
}

/// Nobody has entered a stack with that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoStack;

/// What is kept of a stack besides its frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Kept {
    /// How the walk ended, as `unwind` numbers it.
    pub end: u8,
    /// What allocated, as the tracer numbers functions.
    pub kind: u16,
}

/// The outermost node's frame: not a frame, but what else there is to say of the stack.
fn root(Kept { end, kind }: Kept) -> u64 {
    ROOT | u64::from(kind) << 8 | u64::from(end)
}

/// The way to a stack through the tree, outermost node first: the next stack often shares most of
/// it. Plain integers; zeroed memory is an empty one. For stacks of one ledger.
#[derive(Debug)]
#[repr(C)]
pub struct Trail<const N: usize> {
    len: u32,
    /// One more than each node's index.
    nodes: [u32; N],
    frames: [u64; N],
}

impl<const N: usize> Trail<N> {
    /// The way to nowhere.
    pub const EMPTY: Trail<N> = Trail {
        len: 0,
        nodes: [0; N],
        frames: [0; N],
    };

    /// The node at `index`, if it is `frame`'s.
    #[inline]
    fn node(&self, index: usize, frame: u64) -> Option<u32> {
        let is_on_it = index < self.len as usize && self.frames.get(index) == Some(&frame);
        self.nodes.get(index).copied().filter(|_| is_on_it)
    }

    /// From `index` on, the way is another one, by `node`.
    fn turn(&mut self, index: usize, frame: u64, node: u32) {
        if let (Some(at), Some(of)) = (self.nodes.get_mut(index), self.frames.get_mut(index)) {
            (*at, *of) = (node, frame);
            self.len = index as u32 + 1;
        }
    }
}

impl Ledger<'_> {
    /// The number of the stack of `frames`, innermost first; nothing if there is no room.
    pub fn intern(&self, frames: &[u64], kept: Kept) -> Option<StackId> {
        let mut no_trail = Trail::<0>::EMPTY;
        self.intern_along(frames, kept, &mut no_trail)
    }

    /// The same, faster where the stack shares outer frames with the one before.
    pub fn intern_along<const N: usize>(
        &self,
        frames: &[u64],
        kept: Kept,
        trail: &mut Trail<N>,
    ) -> Option<StackId> {
        let head = self.head();
        let names = Set {
            shape: &FRAMES,
            newest: &head.frames,
            slot: |index| self.frame(index),
        };
        let nodes = Set {
            shape: &NODES,
            newest: &head.nodes,
            slot: |index| self.node(index),
        };
        let mut at: Option<u32> = None;
        let mut on_trail = true;
        let outermost_first = [root(kept)].into_iter().chain(frames.iter().rev().copied());
        for (index, frame) in outermost_first.enumerate() {
            if on_trail && let Some(node) = trail.node(index, frame) {
                at = node.checked_sub(1);
                continue;
            }
            on_trail = false;
            let name = u64::from(names.member(frame)?.wrapping_add(1)) << 32;
            let node = match at {
                None => nodes.member(name),
                Some(caller) => nodes.child(name | u64::from(caller.wrapping_add(1)), caller),
            }?;
            trail.turn(index, frame, node.wrapping_add(1));
            at = Some(node);
        }
        Some(StackId(at?))
    }

    /// What the caller of a stack's innermost frame is: another stack, or nothing if that is its
    /// root. An error if there is no such stack.
    ///
    /// # Errors
    /// [`NoStack`].
    pub fn caller(&self, StackId(id): StackId) -> Result<Option<StackId>, NoStack> {
        let node = self.node(id).load(Acquire);
        let name = ((node >> 32) as u32).checked_sub(1).ok_or(NoStack)?;
        match (node as u32 & CALLER).checked_sub(1) {
            Some(caller) => Ok(Some(StackId(caller))),
            None if self.frame(name).load(Acquire) & ROOT != 0 => Ok(None),
            None => Err(NoStack),
        }
    }

    /// The frames of a stack, innermost first, put one by one into `frame`, and what else was
    /// kept; nothing if there is no such stack.
    pub fn stack(&self, StackId(id): StackId, mut frame: impl FnMut(u64)) -> Option<Kept> {
        let mut at = id;
        for _ in 0..DEEPEST {
            let node = self.node(at).load(Acquire);
            let name = ((node >> 32) as u32).checked_sub(1)?;
            let word = self.frame(name).load(Acquire);
            let Some(parent) = (node as u32 & CALLER).checked_sub(1) else {
                let is_root = word & ROOT != 0;
                return is_root.then_some(Kept {
                    end: word as u8,
                    kind: (word >> 8) as u16,
                });
            };
            frame(word);
            at = parent;
        }
        None
    }
}
