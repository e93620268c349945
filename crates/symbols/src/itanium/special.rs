//! `<special-name>`: tables, thunks, guards.

use super::node::{Id, Piece};
use super::parser::Parser;

/// What is said of a type.
const OF_TYPES: [(&str, &str); 4] = [
    ("TV", "vtable for "),
    ("TT", "VTT for "),
    ("TI", "typeinfo for "),
    ("TS", "typeinfo name for "),
];

/// What is said of a name.
const OF_NAMES: [(&str, &str); 3] = [
    ("TH", "TLS init function for "),
    ("TW", "TLS wrapper function for "),
    ("GV", "guard variable for "),
];

impl<'a> Parser<'a> {
    pub(super) fn special_name(&mut self) -> Option<Id> {
        for (code, text) in OF_TYPES {
            if self.eat(code) {
                let of = self.parse_type()?;
                return Some(self.about(text, of));
            }
        }
        for (code, text) in OF_NAMES {
            if self.eat(code) {
                let of = self.name(None)?;
                return Some(self.about(text, of));
            }
        }
        match self.take(2)? {
            "Tc" => {
                self.call_offset()?;
                self.call_offset()?;
                self.of_encoding("covariant return thunk to ")
            }
            "Th" => {
                self.offset()?;
                self.of_encoding("non-virtual thunk to ")
            }
            "Tv" => {
                self.offset()?;
                self.offset()?;
                self.of_encoding("virtual thunk to ")
            }
            "TC" => self.construction_table(),
            "TA" => {
                let of = self.template_argument()?;
                Some(self.about("template parameter object for ", of))
            }
            "GR" => self.reference_temporary(),
            "GI" => self.module_initializer(),
            "GT" => {
                let text = match self.take(1)? {
                    "n" => "non-transaction clone for ",
                    _ => "transaction clone for ",
                };
                self.of_encoding(text)
            }
            _ => None,
        }
    }

    fn about(&mut self, text: &'a str, of: Id) -> Id {
        self.sequence(vec![Piece::Text(text), Piece::Node(of)])
    }

    fn of_encoding(&mut self, text: &'a str) -> Option<Id> {
        let of = self.encoding(true)?;
        Some(self.about(text, of))
    }

    fn construction_table(&mut self) -> Option<Id> {
        let derived = self.parse_type()?;
        self.eat("n");
        self.number()?;
        self.expect("_")?;
        let base = self.parse_type()?;
        Some(self.sequence(vec![
            Piece::Text("construction vtable for "),
            Piece::Node(base),
            Piece::Text("-in-"),
            Piece::Node(derived),
        ]))
    }

    fn reference_temporary(&mut self) -> Option<Id> {
        let of = self.name(None)?;
        let number = match self.rest() {
            "" => 0,
            _ => self.sequence_id()?,
        };
        Some(self.sequence(vec![
            Piece::Text("reference temporary #"),
            Piece::Number(number as u64),
            Piece::Text(" for "),
            Piece::Node(of),
        ]))
    }

    fn module_initializer(&mut self) -> Option<Id> {
        let of = self.module(None)??;
        Some(self.about("initializer for module ", of))
    }

    /// `<call-offset>`: `h` or `v`, and numbers.
    fn call_offset(&mut self) -> Option<()> {
        match self.take(1)? {
            "h" => self.offset(),
            "v" => {
                self.offset()?;
                self.offset()
            }
            _ => None,
        }
    }

    fn offset(&mut self) -> Option<()> {
        self.eat("n");
        self.digits()?;
        self.expect("_")
    }
}
