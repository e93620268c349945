//! `<type>`

use super::node::{Id, Node, Piece, Signature};
use super::parser::Parser;

/// `<builtin-type>`s of one letter.
const BUILT_IN: [(u8, &str); 21] = [
    (b'a', "signed char"),
    (b'b', "bool"),
    (b'c', "char"),
    (b'd', "double"),
    (b'e', "long double"),
    (b'f', "float"),
    (b'g', "__float128"),
    (b'h', "unsigned char"),
    (b'i', "int"),
    (b'j', "unsigned int"),
    (b'l', "long"),
    (b'm', "unsigned long"),
    (b'n', "__int128"),
    (b'o', "unsigned __int128"),
    (b's', "short"),
    (b't', "unsigned short"),
    (b'v', "void"),
    (b'w', "wchar_t"),
    (b'x', "long long"),
    (b'y', "unsigned long long"),
    (b'z', "..."),
];

/// Those of `D` and a letter.
const BUILT_IN_D: [(u8, &str); 10] = [
    (b'a', "auto"),
    (b'c', "decltype(auto)"),
    (b'd', "decimal64"),
    (b'e', "decimal128"),
    (b'f', "decimal32"),
    (b'h', "half"),
    (b'i', "char32_t"),
    (b'n', "decltype(nullptr)"),
    (b's', "char16_t"),
    (b'u', "char8_t"),
];

fn of_letter(table: &[(u8, &'static str)], letter: u8) -> Option<&'static str> {
    let at = table.binary_search_by_key(&letter, |(letter, _)| *letter);
    table.get(at.ok()?).map(|(_, name)| *name)
}

impl<'a> Parser<'a> {
    /// `<type>`
    pub(super) fn parse_type(&mut self) -> Option<Id> {
        self.deeper(|parser| {
            let (parsed, is_new) = parser.some_type()?;
            if is_new {
                parser.remember(parsed);
            }
            Some(parsed)
        })
    }

    /// A type, and whether it may be substituted.
    fn some_type(&mut self) -> Option<(Id, bool)> {
        let next = self.look(0);
        if let Some(name) = of_letter(&BUILT_IN, next) {
            self.take(1)?;
            return Some((self.text(name), false));
        }
        let parsed = match next {
            b'r' | b'V' | b'K' => self.qualified_type()?,
            b'F' => self.function_type()?,
            b'P' => self.pointer("*")?,
            b'R' => self.pointer("&")?,
            b'O' => self.pointer("&&")?,
            b'A' => self.array_type()?,
            b'M' => self.member_pointer()?,
            b'D' => return self.type_of_d(),
            b'S' if self.look(1) != b't' => return self.substituted_type(),
            b'T' if !matches!(self.look(1), b's' | b'u' | b'e') => self.parameter_type()?,
            b'C' => self.behind(" _Complex")?,
            b'G' => self.behind(" _Imaginary")?,
            b'U' => self.vendor_qualified()?,
            b'u' => {
                self.take(1)?;
                let name = self.source_name()?;
                match self.look(0) {
                    b'I' => {
                        let arguments = self.template_arguments(false)?;
                        self.add(Node::Template(name, arguments))
                    }
                    _ => name,
                }
            }
            _ => self.class_type()?,
        };
        Some((parsed, true))
    }

    fn pointer(&mut self, symbol: &'static str) -> Option<Id> {
        self.take(1)?;
        let of = self.parse_type()?;
        Some(self.add(Node::Pointer(of, symbol)))
    }

    fn behind(&mut self, text: &'static str) -> Option<Id> {
        self.take(1)?;
        let of = self.parse_type()?;
        Some(self.sequence(vec![Piece::Node(of), Piece::Text(text)]))
    }

    fn qualified_type(&mut self) -> Option<Id> {
        // Those of a function's `this` belong to the function's type.
        let mut ahead = 0;
        while matches!(self.look(ahead), b'r' | b'V' | b'K') {
            ahead += 1;
        }
        let is_function = match self.look(ahead) {
            b'F' => true,
            b'D' => matches!(self.look(ahead + 1), b'o' | b'O' | b'w' | b'x'),
            _ => false,
        };
        if is_function {
            return self.function_type();
        }
        let qualifiers = self.qualifiers();
        let of = self.parse_type()?;
        Some(self.add(Node::Qualified(of, qualifiers)))
    }

    /// `<function-type>`, which begins with its qualifiers.
    fn function_type(&mut self) -> Option<Id> {
        let qualifiers = self.qualifiers();
        let exceptions = self.exceptions()?;
        self.eat("Dx");
        self.expect("F")?;
        self.eat("Y");
        let result = self.parse_type()?;
        let mut signature = Signature {
            result: Some(result),
            qualifiers,
            exceptions,
            ..Signature::default()
        };
        loop {
            if self.eat("v") {
                continue;
            }
            if self.next_is("RE") || self.next_is("OE") {
                signature.reference = self.reference();
            }
            if self.eat("E") {
                return Some(self.add(Node::FunctionType(signature)));
            }
            signature.parameters.push(self.parse_type()?);
        }
    }

    /// `<exception-spec>`
    fn exceptions(&mut self) -> Option<Option<Id>> {
        if self.eat("Do") {
            return Some(Some(self.text(" noexcept")));
        }
        let (start, pieces) = if self.eat("DO") {
            let condition = self.expression()?;
            self.expect("E")?;
            (" noexcept(", Piece::Node(condition))
        } else if self.eat("Dw") {
            let all = self.list("E", Parser::parse_type)?;
            (" throw(", Piece::List(all))
        } else {
            return Some(None);
        };
        Some(Some(self.sequence(vec![
            Piece::Text(start),
            pieces,
            Piece::Text(")"),
        ])))
    }

    /// `<array-type>`
    fn array_type(&mut self) -> Option<Id> {
        self.expect("A")?;
        let size = match self.digits() {
            Some(digits) => Some(self.text(digits)),
            None if self.look(0) == b'_' => None,
            None => Some(self.expression()?),
        };
        self.expect("_")?;
        let of = self.parse_type()?;
        Some(self.add(Node::Array { of, size }))
    }

    fn member_pointer(&mut self) -> Option<Id> {
        self.expect("M")?;
        let class = self.parse_type()?;
        let member = self.parse_type()?;
        Some(self.add(Node::MemberPointer { class, member }))
    }

    fn substituted_type(&mut self) -> Option<(Id, bool)> {
        let (name, is_substitution) = self.unscoped_name(None)?;
        if self.look(0) != b'I' || is_substitution && !self.takes_arguments {
            return Some((name, !is_substitution));
        }
        if !is_substitution {
            self.remember(name);
        }
        let arguments = self.template_arguments(false)?;
        Some((self.add(Node::Template(name, arguments)), true))
    }

    fn parameter_type(&mut self) -> Option<Id> {
        let parameter = self.template_parameter()?;
        if self.look(0) != b'I' || !self.takes_arguments {
            return Some(parameter);
        }
        self.remember(parameter);
        let arguments = self.template_arguments(false)?;
        Some(self.add(Node::Template(parameter, arguments)))
    }

    /// `<class-enum-type>`
    fn class_type(&mut self) -> Option<Id> {
        let elaborated = [("Ts", "struct "), ("Tu", "union "), ("Te", "enum ")];
        let found = elaborated.into_iter().find(|(code, _)| self.eat(code));
        let name = self.name(None)?;
        Some(match found {
            Some((_, text)) => self.sequence(vec![Piece::Text(text), Piece::Node(name)]),
            None => name,
        })
    }

    /// `U <source-name> <type>`: what a vendor says of a type.
    fn vendor_qualified(&mut self) -> Option<Id> {
        self.expect("U")?;
        let mut name = self.source_name()?;
        if self.look(0) == b'I' {
            let arguments = self.template_arguments(false)?;
            name = self.add(Node::Template(name, arguments));
        }
        let of = self.parse_type()?;
        let pieces = vec![Piece::Node(of), Piece::Text(" "), Piece::Node(name)];
        Some(self.sequence(pieces))
    }

    /// Types that begin with `D`.
    fn type_of_d(&mut self) -> Option<(Id, bool)> {
        let letter = self.look(1);
        if let Some(name) = of_letter(&BUILT_IN_D, letter) {
            self.take(2)?;
            return Some((self.text(name), false));
        }
        let parsed = match letter {
            b'o' | b'O' | b'w' | b'x' => self.function_type()?,
            b't' | b'T' => self.decltype()?,
            b'v' => self.vector()?,
            b'p' => {
                self.take(2)?;
                let of = self.parse_type()?;
                self.add(Node::Expansion(of))
            }
            b'F' | b'B' | b'U' => return Some((self.sized_number()?, false)),
            b'k' | b'K' => {
                self.take(2)?;
                let concept = self.name(None)?;
                self.sequence(vec![Piece::Node(concept), Piece::Text(" auto")])
            }
            _ => self.class_type()?,
        };
        Some((parsed, true))
    }

    /// `Dt <expression> E`
    pub(super) fn decltype(&mut self) -> Option<Id> {
        matches!(self.take(2)?, "Dt" | "DT").then_some(())?;
        let of = self.expression()?;
        self.expect("E")?;
        Some(self.sequence(vec![
            Piece::Text("decltype ("),
            Piece::Node(of),
            Piece::Text(")"),
        ]))
    }

    fn vector(&mut self) -> Option<Id> {
        self.take(2)?;
        let size = match self.digits() {
            Some(digits) => self.text(digits),
            None => {
                self.eat("_");
                self.expression()?
            }
        };
        self.expect("_")?;
        let of = match self.eat("p") {
            true => self.text("pixel"),
            false => self.parse_type()?,
        };
        Some(self.sequence(vec![
            Piece::Node(of),
            Piece::Text(" __vector("),
            Piece::Node(size),
            Piece::Text(")"),
        ]))
    }

    /// `_Float16`, `std::bfloat16_t`, `_BitInt(7)`.
    fn sized_number(&mut self) -> Option<Id> {
        let kind = self.take(2)?;
        let size = match self.digits() {
            Some(digits) => self.text(digits),
            None => self.expression()?,
        };
        let (start, end) = match kind {
            "DF" if self.eat("b") => ("std::bfloat", "_t"),
            "DF" if self.eat("x") => ("_Float", "x"),
            "DF" => ("_Float", ""),
            "DB" => ("signed _BitInt(", ")"),
            _ => ("unsigned _BitInt(", ")"),
        };
        self.eat("_");
        Some(self.sequence(vec![
            Piece::Text(start),
            Piece::Node(size),
            Piece::Text(end),
        ]))
    }

    /// What a literal of this type is written with behind its digits; `None`: the type before them.
    pub(super) fn literal_suffix(letter: u8) -> Option<&'static str> {
        match letter {
            b'i' => Some(""),
            b'j' => Some("u"),
            b'l' => Some("l"),
            b'm' => Some("ul"),
            b'x' => Some("ll"),
            b'y' => Some("ull"),
            _ => None,
        }
    }
}
