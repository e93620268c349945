//! A name as text. A type may have parts before and behind what it is the type of, so each node is
//! printed in two halves.

use super::node::{Id, Node, Piece, Qualifiers, Reference, Signature};
use super::packs::{Element, Kind};

/// Longest name: behind that it is cut.
const LONGEST: usize = 1 << 14;
/// Most nodes that are visited: there may be exponentially many ways to one.
const MOST_VISITS: usize = 1 << 16;
/// Deepest nesting.
pub(super) const DEEPEST: usize = 512;

/// What is printed of a name that is cut.
const CUT: &str = "…";

pub(super) fn print(nodes: &[Node<'_>], root: Id) -> String {
    let mut printer = Printer {
        nodes,
        text: String::new(),
        element: None,
        left: MOST_VISITS,
        depth: 0,
        is_cut: false,
    };
    printer.whole(root);
    let mut text = printer.text;
    if printer.is_cut {
        let is_end = |end: &usize| text.is_char_boundary(*end);
        let end = (0..=LONGEST.min(text.len())).rev().find(is_end);
        text.truncate(end.unwrap_or(0));
        text.push_str(CUT);
    }
    text
}

pub(super) struct Printer<'p, 'a> {
    nodes: &'p [Node<'a>],
    pub(super) text: String,
    /// Which element of packs is printed, and how many there are.
    pub(super) element: Option<Element>,
    /// How many nodes may still be visited.
    left: usize,
    depth: usize,
    is_cut: bool,
}

impl<'p, 'a> Printer<'p, 'a> {
    pub(super) fn push(&mut self, text: &str) {
        if self.text.len() > LONGEST {
            self.is_cut = true;
        } else {
            self.text.push_str(text);
        }
    }

    pub(super) fn node(&self, id: Id) -> Option<&'p Node<'a>> {
        self.nodes.get(id as usize)
    }

    /// The node, unless too much has been printed.
    fn visit(&mut self, id: Id) -> Option<&'p Node<'a>> {
        self.is_cut |= self.left == 0 || self.depth >= DEEPEST;
        self.left = self.left.saturating_sub(1);
        match self.is_cut {
            true => None,
            false => self.node(id),
        }
    }

    pub(super) fn whole(&mut self, id: Id) {
        self.before(id);
        self.behind(id);
    }

    /// The half before the name of what is of this type; all of anything else.
    fn before(&mut self, id: Id) {
        let Some(node) = self.visit(id) else {
            return;
        };
        self.depth += 1;
        self.first_half(id, node);
        self.depth -= 1;
    }

    fn first_half(&mut self, id: Id, node: &'p Node<'a>) {
        match node {
            Node::Text(text) => self.push(text),
            Node::Sequence(pieces) => self.pieces(pieces),
            Node::Nested(scope, name) => self.nested(*scope, *name),
            Node::Template(name, arguments) => self.template(*name, arguments),
            Node::Constructor(of) => self.base_name(*of),
            Node::Destructor(of) => {
                self.push("~");
                self.base_name(*of);
            }
            Node::Function { name, signature } => self.function(*name, signature),
            Node::Qualified(of, qualifiers) => {
                self.before(*of);
                let meant = self.meant(*of);
                let own = match self.node(meant) {
                    Some(Node::Qualified(_, own)) => *own,
                    _ => Qualifiers::default(),
                };
                self.qualifiers(qualifiers.without(own));
            }
            Node::Pointer(..) => self.pointer(id),
            Node::Array { of, .. } => self.before(*of),
            Node::FunctionType(signature) => {
                if let Some(result) = signature.result {
                    self.before(result);
                    self.push(" ");
                }
            }
            Node::MemberPointer { class, member } => {
                self.before(*member);
                match self.kind(*member) {
                    Kind::Function => self.push("("),
                    Kind::Array => self.push(" ("),
                    Kind::Other => self.push(" "),
                }
                self.whole(*class);
                self.push("::*");
            }
            Node::Arguments(all) => self.list(all),
            Node::Pack(all) => self.of_pack(all, Printer::before),
            Node::Expansion(of) => self.expansion(*of),
            Node::Count(of) => self.count(*of),
            Node::Parameter {
                argument: Some(is), ..
            } => self.before(*is),
            Node::Parameter { index, .. } => {
                self.push(&format!("auto:{}", index.saturating_add(1)))
            }
            Node::Lambda(pieces) => self.pieces(pieces),
        }
    }

    /// The half behind the name of what is of this type.
    fn behind(&mut self, id: Id) {
        let Some(node) = self.visit(id) else {
            return;
        };
        self.depth += 1;
        self.second_half(id, node);
        self.depth -= 1;
    }

    fn second_half(&mut self, id: Id, node: &'p Node<'a>) {
        match node {
            Node::Qualified(of, _) => self.behind(*of),
            Node::Pointer(..) => {
                let (of, _) = self.collapsed(id);
                if self.kind(of) != Kind::Other {
                    self.push(")");
                }
                self.behind(of);
            }
            Node::Array { of, size } => {
                if !self.text.ends_with(']') {
                    self.push(" ");
                }
                self.push("[");
                size.iter().for_each(|size| self.whole(*size));
                self.push("]");
                self.behind(*of);
            }
            Node::FunctionType(signature) => {
                self.signature(signature);
                signature.result.iter().for_each(|of| self.behind(*of));
            }
            Node::MemberPointer { member, .. } => {
                if self.kind(*member) != Kind::Other {
                    self.push(")");
                }
                self.behind(*member);
            }
            Node::Pack(all) => self.of_pack(all, Printer::behind),
            Node::Parameter {
                argument: Some(is), ..
            } => self.behind(*is),
            _ => {}
        }
    }

    fn function(&mut self, name: Id, signature: &Signature) {
        if let Some(result) = signature.result {
            self.before(result);
            if self.kind(result) == Kind::Other {
                self.push(" ");
            }
        }
        self.whole(name);
        self.signature(signature);
        signature.result.iter().for_each(|of| self.behind(*of));
    }

    fn signature(&mut self, signature: &Signature) {
        self.push("(");
        self.list(&signature.parameters);
        self.push(")");
        self.qualifiers(signature.qualifiers);
        self.push(match signature.reference {
            Reference::None => "",
            Reference::Lvalue => " &",
            Reference::Rvalue => " &&",
        });
        signature.exceptions.iter().for_each(|of| self.whole(*of));
    }

    fn nested(&mut self, scope: Id, name: Id) {
        self.whole(scope);
        self.push("::");
        self.whole(name);
    }

    fn template(&mut self, name: Id, arguments: &[Id]) {
        self.whole(name);
        if self.text.ends_with('<') {
            self.push(" ");
        }
        self.push("<");
        self.list(arguments);
        if self.text.ends_with('>') {
            self.push(" ");
        }
        self.push(">");
    }

    /// What a constructor of this is called.
    fn base_name(&mut self, id: Id) {
        let Some(node) = self.visit(id) else {
            return;
        };
        self.depth += 1;
        match node {
            Node::Nested(_, name) | Node::Template(name, _) => self.base_name(*name),
            Node::Parameter {
                argument: Some(is), ..
            } => self.base_name(*is),
            Node::Text(text) => {
                let last = text.rsplit("::").next().unwrap_or(text);
                self.push(match last {
                    "string" => "basic_string",
                    "istream" => "basic_istream",
                    "ostream" => "basic_ostream",
                    "iostream" => "basic_iostream",
                    other => other,
                });
            }
            // Tags of the ABI are not repeated.
            Node::Sequence(pieces) => match pieces.first() {
                Some(Piece::Node(name)) => self.base_name(*name),
                _ => self.pieces(pieces),
            },
            _ => self.whole(id),
        }
        self.depth -= 1;
    }

    fn qualifiers(&mut self, qualifiers: Qualifiers) {
        let all = [
            (qualifiers.is_const, " const"),
            (qualifiers.is_volatile, " volatile"),
            (qualifiers.is_restrict, " restrict"),
        ];
        all.iter()
            .filter(|(is, _)| *is)
            .for_each(|(_, text)| self.push(text));
    }

    fn pointer(&mut self, id: Id) {
        let (of, symbol) = self.collapsed(id);
        self.before(of);
        match self.kind(of) {
            Kind::Array => self.push(" ("),
            Kind::Function => self.push("("),
            Kind::Other => {}
        }
        self.push(symbol);
    }

    fn pieces(&mut self, pieces: &[Piece<'a>]) {
        for piece in pieces {
            match piece {
                Piece::Text(text) => self.push(text),
                Piece::Number(number) => self.push(&number.to_string()),
                Piece::Node(id) => self.whole(*id),
                Piece::Operand(id) => self.operand(*id),
                Piece::List(all) => self.list(all),
            }
        }
    }

    fn operand(&mut self, id: Id) {
        let is_name = match self.node(id) {
            Some(Node::Text(_) | Node::Nested(..) | Node::Template(..)) => true,
            Some(Node::Sequence(pieces) | Node::Lambda(pieces)) => match pieces.first() {
                Some(Piece::Text(text)) => text.starts_with('{'),
                _ => false,
            },
            _ => false,
        };
        if is_name {
            return self.whole(id);
        }
        self.push("(");
        self.whole(id);
        self.push(")");
    }

    fn list(&mut self, all: &[Id]) {
        let mut is_first = true;
        for id in all {
            let before = self.text.len();
            if !is_first {
                self.push(", ");
            }
            let after = self.text.len();
            self.whole(*id);
            match self.text.len() == after {
                // An empty pack.
                true => self.text.truncate(before),
                false => is_first = false,
            }
        }
    }
}
