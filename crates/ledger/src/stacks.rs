use std::collections::HashMap;

/// A stack, by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StackId(pub u32);

/// Distinct stacks, as a tree from the root outwards-in: a node is a frame and the node of its
/// caller, so stacks that share their outer frames share nodes, and a node is a stack.
#[derive(Debug)]
pub struct Stacks {
    nodes: Vec<Node>,
    by_node: HashMap<Node, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Node {
    /// The frame; of a root, how the walks ended that begin there.
    frame: u64,
    parent: Option<u32>,
}

impl Default for Stacks {
    fn default() -> Stacks {
        let mut stacks = Stacks {
            nodes: Vec::new(),
            by_node: HashMap::new(),
        };
        stacks.node(Node {
            frame: 0,
            parent: None,
        }); // StackId(0): a stack without frames
        stacks
    }
}

impl Stacks {
    /// The number of the stack of `frames`, innermost first, whose walk ended as `end` says.
    pub fn intern(&mut self, frames: impl DoubleEndedIterator<Item = u64>, end: u8) -> StackId {
        let mut at = self.node(Node {
            frame: u64::from(end),
            parent: None,
        });
        for frame in frames.rev() {
            at = self.node(Node {
                frame,
                parent: Some(at),
            });
        }
        StackId(at)
    }

    /// The frames of a stack, innermost first, and how its walk ended.
    pub fn get(&self, id: StackId) -> (Vec<u64>, u8) {
        let mut frames = Vec::new();
        let mut at = self.nodes.get(id.0 as usize);
        while let Some(node) = at {
            let Some(parent) = node.parent else {
                return (frames, node.frame as u8);
            };
            frames.push(node.frame);
            at = self.nodes.get(parent as usize);
        }
        (frames, 0)
    }

    fn node(&mut self, node: Node) -> u32 {
        *self.by_node.entry(node).or_insert_with(|| {
            self.nodes.push(node);
            self.nodes.len() as u32 - 1
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_put_in() {
        let mut stacks = Stacks::default();
        let all: [(&[u64], u8); 5] = [
            (&[1, 2, 3], 0),
            (&[2, 3], 0),
            (&[1, 2, 3], 4),
            (&[], 0),
            (&[3], 1),
        ];
        let ids: Vec<_> = all
            .iter()
            .map(|(frames, end)| stacks.intern(frames.iter().copied(), *end))
            .collect();
        for (id, (frames, end)) in ids.iter().zip(all) {
            assert_eq!(stacks.get(*id), (frames.to_vec(), end));
            assert_eq!(stacks.intern(frames.iter().copied(), end), *id);
        }
        assert_eq!(ids[3], StackId::default());
    }

    #[test]
    fn shares_outer_frames() {
        let mut stacks = Stacks::default();
        let before = stacks.nodes.len();
        for inner in 0..1000 {
            stacks.intern([inner, 10, 11, 12].into_iter(), 0);
        }
        assert_eq!(stacks.nodes.len() - before, 1003);
    }
}
