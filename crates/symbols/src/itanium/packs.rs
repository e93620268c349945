//! What a parameter stands for while a name is printed, and packs of such.

use super::node::{Id, Node};
use super::printer::{DEEPEST, Printer};

/// The element of packs that is printed, and how many they have.
#[derive(Clone, Copy)]
pub(super) struct Element {
    index: usize,
    count: Option<usize>,
}

/// What a type is to what is printed about it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Array,
    Function,
    Other,
}

impl Printer<'_, '_> {
    /// What a pointer or reference is to: a reference to a reference is one.
    pub(super) fn collapsed(&mut self, id: Id) -> (Id, &'static str) {
        let Some(Node::Pointer(of, symbol)) = self.node(id) else {
            return (id, "");
        };
        let (mut of, mut symbol) = (*of, *symbol);
        // A parameter may lead to itself: the name is the target's own.
        for _ in 0..DEEPEST {
            if symbol == "*" {
                break;
            }
            let meant = self.meant(of);
            match self.node(meant) {
                Some(Node::Pointer(inner, other @ ("&" | "&&"))) => {
                    symbol = if *other == "&" { "&" } else { symbol };
                    of = *inner;
                }
                _ => break,
            }
        }
        (of, symbol)
    }

    /// What a parameter stands for now.
    pub(super) fn meant(&mut self, id: Id) -> Id {
        let mut id = id;
        for _ in 0..DEEPEST {
            id = match self.node(id) {
                Some(Node::Parameter {
                    argument: Some(is), ..
                }) => *is,
                Some(Node::Pack(all)) => match self.element_of(all) {
                    Some(one) => one,
                    None => return id,
                },
                _ => return id,
            };
        }
        id
    }

    pub(super) fn kind(&mut self, id: Id) -> Kind {
        let mut id = id;
        for _ in 0..DEEPEST {
            let meant = self.meant(id);
            id = match self.node(meant) {
                Some(Node::Array { .. }) => return Kind::Array,
                Some(Node::FunctionType(_)) => return Kind::Function,
                Some(Node::Qualified(of, _)) => *of,
                _ => return Kind::Other,
            };
        }
        Kind::Other
    }

    pub(super) fn of_pack(&mut self, all: &[Id], print: fn(&mut Self, Id)) {
        if let Some(one) = self.element_of(all) {
            print(self, one);
        }
    }

    /// The element of this pack that is printed now. An expansion learns how many there are.
    fn element_of(&mut self, all: &[Id]) -> Option<Id> {
        let element = self.element.get_or_insert(Element {
            index: 0,
            count: None,
        });
        element.count.get_or_insert(all.len());
        all.get(element.index).copied()
    }

    pub(super) fn expansion(&mut self, of: Id) {
        let about = self.element.replace(Element {
            index: 0,
            count: None,
        });
        let start = self.text.len();
        self.whole(of);
        match self.element.and_then(|element| element.count) {
            None => self.push("..."),
            Some(0) => self.text.truncate(start),
            Some(count) => {
                for index in 1..count {
                    self.push(", ");
                    let count = Some(count);
                    self.element = Some(Element { index, count });
                    self.whole(of);
                }
            }
        }
        self.element = about;
    }

    pub(super) fn count(&mut self, of: Id) {
        let of = match self.node(of) {
            Some(Node::Parameter {
                argument: Some(is), ..
            }) => *is,
            _ => of,
        };
        match self.node(of) {
            Some(Node::Pack(all)) => self.push(&all.len().to_string()),
            _ => {
                self.push("sizeof...(");
                self.whole(of);
                self.push(")");
            }
        }
    }
}
