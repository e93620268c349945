//! `<name>`: nested, local, unqualified.

use super::node::{Id, Node, Piece, Reference};
use super::operators;
use super::parser::{Parser, State};

impl<'a> Parser<'a> {
    /// `<name>`. `state` is that of an encoding, of whose name this is the outermost part.
    pub(super) fn name(&mut self, state: Option<&mut State>) -> Option<Id> {
        self.deeper(|parser| parser.name_here(state))
    }

    fn name_here(&mut self, mut state: Option<&mut State>) -> Option<Id> {
        match self.look(0) {
            b'N' => return self.nested_name(state),
            b'Z' => return self.local_name(state),
            _ => {}
        }
        let (mut name, is_substitution) = self.unscoped_name(state.as_deref_mut())?;
        if self.look(0) == b'I' {
            if !is_substitution {
                self.remember(name);
            }
            let arguments = self.template_arguments(state.is_some())?;
            if let Some(state) = state {
                state.ends_with_arguments = true;
            }
            name = self.add(Node::Template(name, arguments));
        } else if is_substitution {
            return None;
        }
        Some(name)
    }

    /// `<unscoped-name>`, and whether it is a substitution.
    pub(super) fn unscoped_name(&mut self, state: Option<&mut State>) -> Option<(Id, bool)> {
        let mut scope = None;
        if self.eat("St") {
            scope = Some(self.text("std"));
        }
        let mut module = None;
        if self.look(0) == b'S' {
            let found = self.substitution()?;
            if self.is_module(found) {
                module = Some(found);
            } else if scope.is_none() {
                return Some((found, true));
            } else {
                return None;
            }
        }
        Some((self.unqualified_name(state, scope, module)?, false))
    }

    fn nested_name(&mut self, mut state: Option<&mut State>) -> Option<Id> {
        self.expect("N")?;
        // An explicit object parameter (`this`) is one of the parameters.
        let qualifiers = match self.eat("H") {
            true => Default::default(),
            false => self.qualifiers(),
        };
        let reference = self.reference();
        if let Some(state) = state.as_deref_mut() {
            (state.qualifiers, state.reference) = (qualifiers, reference);
        }
        let mut name = None;
        let mut is_last_new = false;
        while !self.eat("E") {
            if let Some(state) = state.as_deref_mut() {
                state.ends_with_arguments = false;
            }
            let (part, is_new) = self.prefix(name, state.as_deref_mut())?;
            if is_new {
                self.remember(part);
            }
            self.eat("M");
            (name, is_last_new) = (Some(part), is_new);
        }
        // The whole is no prefix.
        self.substitutions.pop().filter(|_| is_last_new)?;
        name
    }

    /// What a prefix becomes with its next part, and whether that may be substituted.
    fn prefix(&mut self, name: Option<Id>, state: Option<&mut State>) -> Option<(Id, bool)> {
        match (self.look(0), self.look(1), name) {
            (b'T', _, None) => Some((self.template_parameter()?, true)),
            (b'T', ..) | (b'I', _, None) => None,
            (b'I', _, Some(name)) => {
                let arguments = self.template_arguments(state.is_some())?;
                if let Some(state) = state {
                    state.ends_with_arguments = true;
                }
                Some((self.add(Node::Template(name, arguments)), true))
            }
            (b'D', b't' | b'T', None) => Some((self.decltype()?, true)),
            (b'S', b't', None) => {
                self.take(2)?;
                Some((self.text("std"), false))
            }
            (b'S', ..) => {
                let found = self.substitution()?;
                match (self.is_module(found), name) {
                    (true, _) => Some((self.unqualified_name(state, name, Some(found))?, true)),
                    (false, None) => Some((found, false)),
                    (false, Some(_)) => None,
                }
            }
            _ => Some((self.unqualified_name(state, name, None)?, true)),
        }
    }

    pub(super) fn reference(&mut self) -> Reference {
        match () {
            () if self.eat("R") => Reference::Lvalue,
            () if self.eat("O") => Reference::Rvalue,
            () => Reference::None,
        }
    }

    /// `<local-name>`: what is declared in a function.
    fn local_name(&mut self, state: Option<&mut State>) -> Option<Id> {
        self.expect("Z")?;
        let function = self.encoding(false)?;
        self.expect("E")?;
        if self.eat("s") {
            self.discriminator();
            let literal = self.text("string literal");
            return Some(self.add(Node::Nested(function, literal)));
        }
        let mut scope = function;
        if self.eat("d") {
            let number = self.ordinal()?.checked_add(1)? as u64;
            let argument = self.sequence(vec![
                Piece::Text("{default arg#"),
                Piece::Number(number),
                Piece::Text("}"),
            ]);
            scope = self.add(Node::Nested(function, argument));
        }
        let entity = self.name(state)?;
        self.discriminator();
        Some(self.add(Node::Nested(scope, entity)))
    }

    /// `_ <digit>`, `__ <number> _`, or as old compilers had it, digits at the very end.
    fn discriminator(&mut self) {
        if self.eat("__") {
            self.digits();
            self.eat("_");
        } else if self.look(0) == b'_' && self.look(1).is_ascii_digit() {
            self.take(2);
        } else if self.rest().bytes().all(|byte| byte.is_ascii_digit()) {
            self.digits();
        }
    }

    /// `<unqualified-name>` in `scope`.
    pub(super) fn unqualified_name(
        &mut self,
        state: Option<&mut State>,
        scope: Option<Id>,
        module: Option<Id>,
    ) -> Option<Id> {
        let module = self.module(module)?;
        let is_friend = scope.is_some() && self.eat("F");
        self.eat("L");
        let mut name = match (self.look(0), self.look(1)) {
            (b'0'..=b'9', _) => self.source_name()?,
            (b'U', _) => self.unnamed_name()?,
            (b'D', b'C') => self.structured_binding()?,
            (b'C', _) | (b'D', b'0'..=b'9') => self.constructor(scope?, state)?,
            _ => self.operator_name(state)?,
        };
        name = self.abi_tags(name)?;
        if let Some(module) = module {
            let pieces = vec![Piece::Node(name), Piece::Text("@"), Piece::Node(module)];
            name = self.sequence(pieces);
        }
        if is_friend {
            name = self.sequence(vec![Piece::Text("[friend]"), Piece::Node(name)]);
        }
        Some(match scope {
            Some(scope) => self.add(Node::Nested(scope, name)),
            None => name,
        })
    }

    /// `<source-name>`
    pub(super) fn source_name(&mut self) -> Option<Id> {
        let len = self.number()?;
        let name = self.take(len)?;
        Some(self.text(match name.strip_prefix("_GLOBAL_") {
            Some(rest) if rest.starts_with(['.', '_', '$']) && rest[1..].starts_with('N') => {
                "(anonymous namespace)"
            }
            _ => name,
        }))
    }

    /// `W [P] <source-name>` of C++20's modules, behind `module`.
    pub(super) fn module(&mut self, mut module: Option<Id>) -> Option<Option<Id>> {
        while self.eat("W") {
            let is_partition = self.eat("P");
            let part = self.source_name()?;
            let mut pieces = Vec::new();
            if let Some(module) = module {
                pieces.push(Piece::Node(module));
            }
            match (is_partition, module) {
                (true, _) => pieces.push(Piece::Text(":")),
                (false, Some(_)) => pieces.push(Piece::Text(".")),
                (false, None) => pieces.push(Piece::Text("")),
            }
            pieces.push(Piece::Node(part));
            let all = self.sequence(pieces);
            self.modules.push(all);
            module = Some(self.remember(all));
        }
        Some(module)
    }

    fn is_module(&self, id: Id) -> bool {
        self.modules.contains(&id)
    }

    /// `DC <source-name>+ E`
    fn structured_binding(&mut self) -> Option<Id> {
        self.expect("DC")?;
        let names = self.list("E", Parser::source_name)?;
        Some(self.sequence(vec![Piece::Text("["), Piece::List(names), Piece::Text("]")]))
    }

    fn constructor(&mut self, scope: Id, state: Option<&mut State>) -> Option<Id> {
        if let Some(state) = state {
            state.has_no_result = true;
        }
        if self.eat("C") {
            let is_inherited = self.eat("I");
            matches!(self.take(1)?, "1" | "2" | "3" | "4" | "5").then_some(())?;
            let of = match is_inherited {
                true => self.parse_type()?,
                false => scope,
            };
            return Some(self.add(Node::Constructor(of)));
        }
        self.expect("D")?;
        matches!(self.take(1)?, "0" | "1" | "2" | "4" | "5").then_some(())?;
        Some(self.add(Node::Destructor(scope)))
    }

    /// `<operator-name>`
    pub(super) fn operator_name(&mut self, state: Option<&mut State>) -> Option<Id> {
        let operator = |name| vec![Piece::Text("operator "), Piece::Node(name)];
        if self.eat("cv") {
            let of = self.conversion_type(state)?;
            return Some(self.sequence(operator(of)));
        }
        if self.eat("li") {
            let name = self.source_name()?;
            return Some(self.sequence(vec![Piece::Text("operator\"\" "), Piece::Node(name)]));
        }
        if self.look(0) == b'v' && self.look(1).is_ascii_digit() {
            self.take(2)?;
            let name = self.source_name()?;
            return Some(self.sequence(operator(name)));
        }
        let symbol = operators::symbol(self.take(2)?)?;
        let space = match symbol.starts_with(|c: char| c.is_ascii_alphabetic()) {
            true => "operator ",
            false => "operator",
        };
        Some(self.sequence(vec![Piece::Text(space), Piece::Text(symbol)]))
    }

    fn conversion_type(&mut self, state: Option<&mut State>) -> Option<Id> {
        let permits = self.permits_forwards || state.is_some();
        let permits = std::mem::replace(&mut self.permits_forwards, permits);
        let takes = std::mem::replace(&mut self.takes_arguments, false);
        let of = self.parse_type();
        (self.permits_forwards, self.takes_arguments) = (permits, takes);
        if let Some(state) = state {
            state.has_no_result = true;
        }
        of
    }

    /// `<substitution>`
    pub(super) fn substitution(&mut self) -> Option<Id> {
        self.expect("S")?;
        let known = match self.look(0) {
            b't' => "std",
            b'a' => "std::allocator",
            b'b' => "std::basic_string",
            b's' => "std::string",
            b'i' => "std::istream",
            b'o' => "std::ostream",
            b'd' => "std::iostream",
            _ => {
                let index = self.sequence_id()?;
                let found = *self.substitutions.get(index)?;
                return self.substituted(found);
            }
        };
        self.take(1)?;
        let mut name = self.text(known);
        if self.next_is("B") {
            name = self.abi_tags(name)?;
            self.remember(name);
        }
        Some(name)
    }

    /// `<abi-tags>` of `name`, if there are any.
    fn abi_tags(&mut self, mut name: Id) -> Option<Id> {
        while self.eat("B") {
            let tag = self.source_name()?;
            name = self.sequence(vec![
                Piece::Node(name),
                Piece::Text("[abi:"),
                Piece::Node(tag),
                Piece::Text("]"),
            ]);
        }
        Some(name)
    }
}
