//! `<expression>`: what stands in types of templates that depend on values.

use super::node::{Id, Node, Piece};
use super::operators::{self, Form};
use super::parser::Parser;

impl<'a> Parser<'a> {
    /// `<expression>`
    pub(super) fn expression(&mut self) -> Option<Id> {
        self.deeper(Parser::some_expression)
    }

    fn some_expression(&mut self) -> Option<Id> {
        let is_global = self.eat("gs");
        match (self.look(0), self.look(1)) {
            (b'L', _) => return self.literal(),
            (b'T', _) => return self.template_parameter(),
            (b'f', b'p') => return self.function_parameter(),
            (b'f', b'L') if !self.look(2).is_ascii_digit() => return self.fold(),
            (b'f', b'L') => return self.function_parameter(),
            (b'f', b'l' | b'r' | b'R') => return self.fold(),
            (b'0'..=b'9', _) => return self.unresolved_name(is_global),
            (b'u', _) => return self.vendor_expression(),
            _ => {}
        }
        let code = self.rest().get(..2)?;
        match code {
            "sr" | "on" | "dn" => return self.unresolved_name(is_global),
            "cl" | "cp" => return self.call(),
            "cv" => return self.conversion(),
            "il" | "tl" => return self.braced(),
            "nw" | "na" => return self.new_expression(is_global),
            "dl" | "da" => return self.delete_expression(is_global),
            "sp" => {
                self.take(2)?;
                let of = self.expression()?;
                return Some(self.add(Node::Expansion(of)));
            }
            "sZ" | "sP" => return self.count(),
            "rq" | "rQ" => return self.requires(),
            "di" | "dx" | "dX" => return self.designated(),
            _ => {}
        }
        if let Some(wrapped) = self.wrapped(code) {
            return wrapped;
        }
        let (symbol, form) = operators::operator(code)?;
        self.take(2)?;
        self.operation(code, symbol, form)
    }

    fn operation(&mut self, code: &str, symbol: &'static str, form: Form) -> Option<Id> {
        match (code, form) {
            ("ix", _) => {
                let (of, index) = (self.expression()?, self.expression()?);
                let operand = Piece::Operand(of);
                let rest = [Piece::Text("["), Piece::Node(index), Piece::Text("]")];
                Some(self.sequence([operand].into_iter().chain(rest).collect()))
            }
            ("qu", _) => {
                let all = [self.expression()?, self.expression()?, self.expression()?];
                let [condition, yes, no] = all.map(Piece::Operand);
                let pieces = vec![condition, Piece::Text("?"), yes, Piece::Text(" : "), no];
                Some(self.sequence(pieces))
            }
            ("dt" | "pt", _) => {
                let of = self.expression()?;
                let member = match self.look(0) {
                    b'L' | b'0'..=b'9' | b'o' | b'd' | b's' | b'g' => self.unresolved_name(false),
                    _ => self.expression(),
                };
                let pieces = vec![
                    Piece::Operand(of),
                    Piece::Text(symbol),
                    Piece::Node(member?),
                ];
                Some(self.sequence(pieces))
            }
            (_, Form::Prefix) => {
                let of = self.expression()?;
                // Of a function only its name.
                let of = match self.node(of) {
                    Some(Node::Function { name, .. }) if code == "ad" => *name,
                    _ => of,
                };
                Some(self.sequence(vec![Piece::Text(symbol), Piece::Operand(of)]))
            }
            (_, Form::Postfix) => {
                let is_prefix = self.eat("_");
                let of = Piece::Operand(self.expression()?);
                Some(match is_prefix {
                    true => self.sequence(vec![Piece::Text(symbol), of]),
                    false => self.sequence(vec![of, Piece::Text(symbol)]),
                })
            }
            (_, Form::Infix) => {
                let (left, right) = (self.expression()?, self.expression()?);
                Some(self.infix(left, symbol, right))
            }
            (_, Form::Other) => None,
        }
    }

    fn infix(&mut self, left: Id, symbol: &'static str, right: Id) -> Id {
        let (left, right) = (Piece::Operand(left), Piece::Operand(right));
        let mut pieces = vec![left, Piece::Text(symbol), right];
        // Else it would end template arguments.
        if symbol == ">" {
            pieces.insert(0, Piece::Text("("));
            pieces.push(Piece::Text(")"));
        }
        self.sequence(pieces)
    }

    /// What stands before one type or expression in brackets.
    fn wrapped(&mut self, code: &str) -> Option<Option<Id>> {
        let (start, is_type, cast) = match code {
            "st" => ("sizeof (", true, false),
            "sz" => ("sizeof (", false, false),
            "at" => ("alignof (", true, false),
            "az" => ("alignof (", false, false),
            "ti" => ("typeid (", true, false),
            "te" => ("typeid (", false, false),
            "nx" => ("noexcept (", false, false),
            "tw" => ("throw (", false, false),
            "cc" => ("const_cast<", true, true),
            "dc" => ("dynamic_cast<", true, true),
            "rc" => ("reinterpret_cast<", true, true),
            "sc" => ("static_cast<", true, true),
            "tr" => {
                self.take(2);
                return Some(Some(self.text("throw")));
            }
            _ => return None,
        };
        self.take(2);
        Some(self.wrapped_in(start, is_type, cast))
    }

    fn wrapped_in(&mut self, start: &'static str, is_type: bool, is_cast: bool) -> Option<Id> {
        let of = match is_type {
            true => self.parse_type()?,
            false => self.expression()?,
        };
        let mut pieces = vec![Piece::Text(start), Piece::Node(of)];
        if is_cast {
            let value = self.expression()?;
            pieces.extend([Piece::Text(">("), Piece::Node(value)]);
        }
        pieces.push(Piece::Text(")"));
        Some(self.sequence(pieces))
    }

    /// `fp <qualifiers> [<number>] _`, `fL <number> p …`, or `fpT` for `this`.
    fn function_parameter(&mut self) -> Option<Id> {
        if self.eat("fpT") {
            return Some(self.text("this"));
        }
        if self.eat("fL") {
            self.number()?;
            self.expect("p")?;
        } else {
            self.expect("fp")?;
        }
        self.qualifiers();
        let number = self.ordinal()?.checked_add(1)? as u64;
        Some(self.sequence(vec![
            Piece::Text("{parm#"),
            Piece::Number(number),
            Piece::Text("}"),
        ]))
    }

    /// `(... + a)` and its kin.
    fn fold(&mut self) -> Option<Id> {
        self.expect("f")?;
        let kind = self.take(1)?;
        let (symbol, _) = operators::operator(self.take(2)?)?;
        let first = self.expression()?;
        let dots = || Piece::Text("...");
        let mut pieces = vec![Piece::Text("(")];
        match kind {
            "l" => pieces.extend([dots(), Piece::Text(symbol), Piece::Operand(first)]),
            "r" => pieces.extend([Piece::Operand(first), Piece::Text(symbol), dots()]),
            _ => {
                let second = Piece::Operand(self.expression()?);
                let first = Piece::Operand(first);
                let symbol = || Piece::Text(symbol);
                pieces.extend([first, symbol(), dots(), symbol(), second]);
            }
        }
        pieces.push(Piece::Text(")"));
        Some(self.sequence(pieces))
    }

    fn call(&mut self) -> Option<Id> {
        self.take(2)?;
        let function = self.expression()?;
        let arguments = self.list("E", Parser::expression)?;
        let mut pieces = vec![Piece::Operand(function), Piece::Text("(")];
        pieces.extend([Piece::List(arguments), Piece::Text(")")]);
        Some(self.sequence(pieces))
    }

    /// `cv <type> <expression>`, or with `_` many of them.
    fn conversion(&mut self) -> Option<Id> {
        self.take(2)?;
        let takes = std::mem::replace(&mut self.takes_arguments, false);
        let of = self.parse_type();
        self.takes_arguments = takes;
        let of = of?;
        let values = match self.eat("_") {
            true => self.list("E", Parser::expression)?,
            false => vec![self.expression()?],
        };
        Some(self.sequence(vec![
            Piece::Text("("),
            Piece::Node(of),
            Piece::Text(")("),
            Piece::List(values),
            Piece::Text(")"),
        ]))
    }

    fn braced(&mut self) -> Option<Id> {
        let mut pieces = Vec::new();
        if self.take(2)? == "tl" {
            pieces.push(Piece::Node(self.parse_type()?));
        }
        let values = self.list("E", Parser::expression)?;
        pieces.extend([Piece::Text("{"), Piece::List(values), Piece::Text("}")]);
        Some(self.sequence(pieces))
    }

    /// `.a=b`, `[a]=b`, `[a ... b]=c` in braces.
    fn designated(&mut self) -> Option<Id> {
        let mut pieces = match self.take(2)? {
            "di" => vec![Piece::Text("."), Piece::Node(self.source_name()?)],
            "dx" => vec![
                Piece::Text("["),
                Piece::Node(self.expression()?),
                Piece::Text("]"),
            ],
            _ => {
                let (first, last) = (self.expression()?, self.expression()?);
                let (first, last) = (Piece::Node(first), Piece::Node(last));
                let dots = Piece::Text(" ... ");
                vec![Piece::Text("["), first, dots, last, Piece::Text("]")]
            }
        };
        let value = self.expression()?;
        pieces.extend([Piece::Text("="), Piece::Node(value)]);
        Some(self.sequence(pieces))
    }

    fn new_expression(&mut self, is_global: bool) -> Option<Id> {
        let mut pieces = vec![Piece::Text(if is_global { "::new " } else { "new " })];
        let is_array = self.take(2)? == "na";
        let place = self.list("_", Parser::expression)?;
        if !place.is_empty() {
            pieces.extend([Piece::Text("("), Piece::List(place), Piece::Text(") ")]);
        }
        pieces.push(Piece::Node(self.parse_type()?));
        if is_array {
            pieces.push(Piece::Text("[]"));
        }
        if self.eat("pi") {
            let values = self.list("E", Parser::expression)?;
            pieces.extend([Piece::Text("("), Piece::List(values), Piece::Text(")")]);
        } else if self.next_is("il") {
            pieces.push(Piece::Node(self.braced()?));
        } else {
            self.expect("E")?;
        }
        Some(self.sequence(pieces))
    }

    fn delete_expression(&mut self, is_global: bool) -> Option<Id> {
        let mut pieces = vec![Piece::Text(if is_global { "::" } else { "" })];
        pieces.push(Piece::Text(match self.take(2)? {
            "da" => "delete[] ",
            _ => "delete ",
        }));
        pieces.push(Piece::Node(self.expression()?));
        Some(self.sequence(pieces))
    }

    /// `sizeof...`
    fn count(&mut self) -> Option<Id> {
        if self.take(2)? == "sP" {
            let all = self.list("E", Parser::template_argument)?;
            return Some(self.sequence(vec![
                Piece::Text("sizeof...("),
                Piece::List(all),
                Piece::Text(")"),
            ]));
        }
        let of = match self.look(0) {
            b'T' => self.template_parameter()?,
            _ => self.function_parameter()?,
        };
        Some(self.add(Node::Count(of)))
    }

    /// `u <source-name> <template-arg>* E`
    fn vendor_expression(&mut self) -> Option<Id> {
        self.expect("u")?;
        let name = self.source_name()?;
        let arguments = self.list("E", Parser::template_argument)?;
        Some(self.sequence(vec![
            Piece::Node(name),
            Piece::Text("("),
            Piece::List(arguments),
            Piece::Text(")"),
        ]))
    }
}
