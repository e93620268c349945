//! What all parts of the grammar need: the text, the graph, substitutions.

use super::node::{Id, Node, Piece, Qualifiers, Reference, Signature};

/// Deepest nesting of types, names and expressions: each level takes a few frames of the stack.
const DEEPEST: usize = 512;

/// Most nodes of substitutions that are looked at for what `T_` means.
const MOST_REWRITES: usize = 1 << 16;

pub(super) struct Parser<'a> {
    text: &'a str,
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) substitutions: Vec<Id>,
    /// The template arguments of the name that is being parsed.
    pub(super) outermost: Vec<Id>,
    /// Template parameters that stand before the arguments: nodes, and which they are.
    pub(super) forwards: Vec<(Id, usize)>,
    /// In the type of a conversion operator, parameters may stand before the arguments.
    pub(super) permits_forwards: bool,
    /// Arguments behind such a type are those of the operator.
    pub(super) takes_arguments: bool,
    /// How many lambdas there are whose parameters are being parsed.
    pub(super) lambda_depth: usize,
    /// There was a lambda or a function in the name, in which `T_` means something else.
    pub(super) has_inner: bool,
    pub(super) rewrites_left: usize,
    /// Nodes that are modules of C++20.
    pub(super) modules: Vec<Id>,
    depth: usize,
}

/// What is known of a name behind which parameters may follow.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct State {
    /// No result is mangled: a constructor, destructor or conversion.
    pub(super) has_no_result: bool,
    pub(super) ends_with_arguments: bool,
    pub(super) qualifiers: Qualifiers,
    pub(super) reference: Reference,
    pub(super) first_forward: usize,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Parser<'a> {
        Parser {
            text,
            nodes: Vec::new(),
            substitutions: Vec::new(),
            outermost: Vec::new(),
            forwards: Vec::new(),
            permits_forwards: false,
            takes_arguments: true,
            lambda_depth: 0,
            has_inner: false,
            rewrites_left: MOST_REWRITES,
            modules: Vec::new(),
            depth: 0,
        }
    }

    pub(super) fn rest(&self) -> &'a str {
        self.text
    }

    /// The byte `ahead` of the next.
    pub(super) fn look(&self, ahead: usize) -> u8 {
        self.text.as_bytes().get(ahead).copied().unwrap_or(0)
    }

    pub(super) fn next_is(&self, start: &str) -> bool {
        self.text.starts_with(start)
    }

    /// Whether `start` comes next, which is behind us then.
    pub(super) fn eat(&mut self, start: &str) -> bool {
        match self.text.strip_prefix(start) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    pub(super) fn expect(&mut self, start: &str) -> Option<()> {
        self.eat(start).then_some(())
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<&'a str> {
        let (taken, rest) = self.text.split_at_checked(len)?;
        self.text = rest;
        Some(taken)
    }

    /// Parses one level deeper.
    pub(super) fn deeper(&mut self, parse: impl FnOnce(&mut Self) -> Option<Id>) -> Option<Id> {
        if self.depth >= DEEPEST {
            return None;
        }
        self.depth += 1;
        let parsed = parse(self);
        self.depth -= 1;
        parsed
    }

    /// All that `parse` finds up to `end`.
    pub(super) fn list(
        &mut self,
        end: &str,
        parse: fn(&mut Self) -> Option<Id>,
    ) -> Option<Vec<Id>> {
        let mut list = Vec::new();
        while !self.eat(end) {
            list.push(parse(self)?);
        }
        Some(list)
    }

    pub(super) fn add(&mut self, node: Node<'a>) -> Id {
        self.nodes.push(node);
        (self.nodes.len() - 1) as Id // fewer than bytes of a file
    }

    pub(super) fn text(&mut self, text: &'a str) -> Id {
        self.add(Node::Text(text))
    }

    pub(super) fn sequence(&mut self, pieces: Vec<Piece<'a>>) -> Id {
        self.add(Node::Sequence(pieces))
    }

    pub(super) fn node(&self, id: Id) -> Option<&Node<'a>> {
        self.nodes.get(id as usize)
    }

    /// Later `S…_` mean this.
    pub(super) fn remember(&mut self, id: Id) -> Id {
        self.substitutions.push(id);
        id
    }

    /// `<number>`, which an `n` makes negative: its digits.
    pub(super) fn digits(&mut self) -> Option<&'a str> {
        let len = self.text.bytes().take_while(u8::is_ascii_digit).count();
        (len > 0).then(|| self.take(len)).flatten()
    }

    pub(super) fn number(&mut self) -> Option<usize> {
        self.digits()?.parse().ok()
    }

    /// `[ <number> ] _`: the first has none.
    pub(super) fn ordinal(&mut self) -> Option<usize> {
        if self.eat("_") {
            return Some(0);
        }
        let number = self.number()?;
        self.expect("_")?;
        number.checked_add(1)
    }

    /// `<seq-id> _` of a substitution, to base 36.
    pub(super) fn sequence_id(&mut self) -> Option<usize> {
        if self.eat("_") {
            return Some(0);
        }
        let len = self.text.find('_')?;
        let digits = self.take(len)?;
        let is_digit = |byte: u8| byte.is_ascii_digit() || byte.is_ascii_uppercase();
        if !digits.bytes().all(is_digit) {
            return None;
        }
        self.expect("_")?;
        usize::from_str_radix(digits, 36).ok()?.checked_add(1)
    }

    pub(super) fn qualifiers(&mut self) -> Qualifiers {
        Qualifiers {
            is_restrict: self.eat("r"),
            is_volatile: self.eat("V"),
            is_const: self.eat("K"),
        }
    }

    /// `<encoding>`: a name, and what it is called with.
    pub(super) fn encoding(&mut self, has_result: bool) -> Option<Id> {
        self.has_inner |= self.depth > 0;
        let outermost = std::mem::take(&mut self.outermost);
        let lambda_depth = std::mem::take(&mut self.lambda_depth);
        let parsed = self.deeper(|parser| match parser.look(0) {
            b'G' | b'T' => parser.special_name(),
            _ => parser.function_or_object(has_result),
        });
        (self.outermost, self.lambda_depth) = (outermost, lambda_depth);
        parsed
    }

    fn function_or_object(&mut self, has_result: bool) -> Option<Id> {
        let mut state = State {
            first_forward: self.forwards.len(),
            ..State::default()
        };
        let name = self.name(Some(&mut state))?;
        self.resolve_forwards(state.first_forward)?;
        if self.is_end_of_encoding() {
            return Some(name);
        }
        self.enable_if()?;
        let mut result = None;
        if !state.has_no_result && state.ends_with_arguments {
            result = Some(self.parse_type()?);
        }
        let mut signature = Signature {
            // In front of what is local to it, a result would be taken for that of the whole.
            result: result.filter(|_| has_result),
            qualifiers: state.qualifiers,
            reference: state.reference,
            ..Signature::default()
        };
        if !self.eat("v") {
            while !self.is_end_of_encoding() && self.look(0) != b'Q' {
                signature.parameters.push(self.parse_type()?);
            }
        }
        if self.eat("Q") {
            self.expression()?;
        }
        Some(self.add(Node::Function { name, signature }))
    }

    fn is_end_of_encoding(&self) -> bool {
        matches!(self.look(0), 0 | b'E' | b'.' | b'_')
    }

    /// `__attribute__((enable_if(…)))`, which is not shown.
    fn enable_if(&mut self) -> Option<()> {
        if self.eat("Ua9enable_ifI") {
            self.list("E", Parser::template_argument)?;
        }
        Some(())
    }
}
