//! Stacks as a tree, of which sums are told: a node is a path, and all stacks that begin so.

use std::collections::HashMap;
use std::hash::Hash;

/// There may be millions of nodes. The first is the root.
pub(super) struct Tree<K> {
    nodes: Vec<Node<K>>,
    /// By parent and key.
    numbers: HashMap<(u32, K), u32>,
}

/// What begins with one path.
pub(super) struct Node<K> {
    /// The last step of the path; none of the root.
    pub(super) key: Option<K>,
    pub(super) bytes: u64,
    first_child: Option<u32>,
    next_sibling: Option<u32>,
}

impl<K: Copy + Eq + Hash> Tree<K> {
    pub(super) fn new() -> Tree<K> {
        let root = Node {
            key: None,
            bytes: 0,
            first_child: None,
            next_sibling: None,
        };
        Tree {
            nodes: vec![root],
            numbers: HashMap::new(),
        }
    }

    /// Adds `bytes` to all nodes of a path.
    pub(super) fn add(&mut self, path: impl Iterator<Item = K>, bytes: u64) {
        let mut at = 0;
        self.count(at, bytes);
        for key in path {
            at = self.child(at, key);
            self.count(at, bytes);
        }
    }

    fn child(&mut self, parent: u32, key: K) -> u32 {
        let next = self.nodes.len() as u32;
        let number = *self.numbers.entry((parent, key)).or_insert(next);
        if number == next {
            let parent = self.nodes.get_mut(parent as usize);
            let next_sibling = parent.and_then(|parent| parent.first_child.replace(next));
            self.nodes.push(Node {
                key: Some(key),
                bytes: 0,
                first_child: None,
                next_sibling,
            });
        }
        number
    }

    fn count(&mut self, at: u32, bytes: u64) {
        if let Some(node) = self.nodes.get_mut(at as usize) {
            node.bytes = node.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn node(&self, at: u32) -> Option<&Node<K>> {
        self.nodes.get(at as usize)
    }

    /// The numbers of the nodes below one, with their bytes.
    pub(super) fn below(&self, node: &Node<K>) -> impl Iterator<Item = (u32, u64)> {
        let of = |at: u32| Some((at, self.node(at)?));
        let first = node.first_child.and_then(of);
        let children = std::iter::successors(first, move |(_, node)| of(node.next_sibling?));
        children.map(|(at, node)| (at, node.bytes))
    }
}
