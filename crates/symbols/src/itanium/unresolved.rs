//! `<unresolved-name>`, `<expr-primary>`, and what C++20 requires.

use super::node::{Id, Node, Piece};
use super::parser::Parser;

impl Parser<'_> {
    /// `<unresolved-name>`
    pub(super) fn unresolved_name(&mut self, is_global: bool) -> Option<Id> {
        let is_global = self.eat("gs") || is_global;
        let mut name = match self.eat("sr") {
            false => self.base_unresolved_name()?,
            true => {
                let scope = self.scope()?;
                let base = self.base_unresolved_name()?;
                self.add(Node::Nested(scope, base))
            }
        };
        if is_global {
            name = self.sequence(vec![Piece::Text("::"), Piece::Node(name)]);
        }
        Some(name)
    }

    /// What stands behind `sr`: a type, or levels up to an `E`. GCC has a type with arguments there
    /// that no `E` ends.
    fn scope(&mut self) -> Option<Id> {
        let mut scope = None;
        while self.look(0).is_ascii_digit() {
            let known = self.substitutions.len();
            let name = self.source_name()?;
            self.remember(name);
            let level = self.with_arguments(name)?;
            let is_type = level != name && !self.next_is("E");
            let all = match scope {
                Some(scope) => self.add(Node::Nested(scope, level)),
                None => level,
            };
            if is_type {
                return Some(self.remember(all));
            }
            if known < self.substitutions.len() {
                self.substitutions.remove(known);
            }
            scope = Some(all);
        }
        match scope {
            Some(scope) => self.eat("E").then_some(scope),
            None => self.parse_type(),
        }
    }

    /// `<simple-id>`
    fn simple_id(&mut self) -> Option<Id> {
        let name = self.source_name()?;
        self.with_arguments(name)
    }

    fn with_arguments(&mut self, name: Id) -> Option<Id> {
        if self.look(0) != b'I' {
            return Some(name);
        }
        let arguments = self.template_arguments(false)?;
        Some(self.add(Node::Template(name, arguments)))
    }

    /// `<base-unresolved-name>`
    fn base_unresolved_name(&mut self) -> Option<Id> {
        if self.look(0).is_ascii_digit() {
            return self.simple_id();
        }
        if self.eat("dn") {
            let of = match self.look(0) {
                b'0'..=b'9' => self.simple_id()?,
                _ => self.parse_type()?,
            };
            return Some(self.sequence(vec![Piece::Text("~"), Piece::Node(of)]));
        }
        self.eat("on");
        let name = self.operator_name(None)?;
        self.with_arguments(name)
    }

    /// `<expr-primary>`
    pub(super) fn literal(&mut self) -> Option<Id> {
        self.expect("L")?;
        if self.next_is("_Z") || self.next_is("Z") {
            self.eat("_");
            self.take(1)?;
            let entity = self.encoding(true)?;
            self.expect("E")?;
            return Some(entity);
        }
        let letter = self.look(0);
        if letter == b'A' {
            let of = self.parse_type()?;
            self.eat("0");
            self.expect("E")?;
            let pieces = vec![Piece::Text("\"<"), Piece::Node(of), Piece::Text(">\"")];
            return Some(self.sequence(pieces));
        }
        for (code, text) in [
            ("b0E", "false"),
            ("b1E", "true"),
            ("DnE", "nullptr"),
            ("Dn0E", "(decltype(nullptr))0"),
        ] {
            if self.eat(code) {
                return Some(self.text(text));
            }
        }
        if self.next_is("Ul") {
            let lambda = self.unnamed_name()?;
            self.expect("E")?;
            return Some(lambda);
        }
        let of = self.parse_type()?;
        self.value(letter, of)
    }

    fn value(&mut self, letter: u8, of: Id) -> Option<Id> {
        let sign = if self.eat("n") { "-" } else { "" };
        let len = self.rest().find('E')?;
        let digits = self.take(len)?;
        self.expect("E")?;
        let (start, end) = match letter {
            b'f' | b'd' | b'e' | b'g' => ("[", "]"),
            _ => ("", ""),
        };
        Some(match Parser::literal_suffix(letter) {
            Some(suffix) => {
                let pieces = [sign, digits, suffix].map(Piece::Text);
                self.sequence(pieces.into())
            }
            None if digits.is_empty() => of,
            None => self.sequence(vec![
                Piece::Text("("),
                Piece::Node(of),
                Piece::Text(")"),
                Piece::Text(start),
                Piece::Text(sign),
                Piece::Text(digits),
                Piece::Text(end),
            ]),
        })
    }

    /// `rq <requirement>+ E`: all requirements are read, none is shown.
    pub(super) fn requires(&mut self) -> Option<Id> {
        if self.take(2)? == "rQ" {
            self.list("_", Parser::parse_type)?;
        }
        self.list("E", |parser| {
            let parsed = match parser.take(1)? {
                "X" => {
                    let value = parser.expression()?;
                    parser.eat("N");
                    if parser.eat("R") {
                        parser.name(None)?;
                    }
                    value
                }
                "T" => parser.parse_type()?,
                "Q" => parser.expression()?,
                _ => return None,
            };
            Some(parsed)
        })?;
        Some(self.text("requires {...}"))
    }
}
