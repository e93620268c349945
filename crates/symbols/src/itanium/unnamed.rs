//! `<unnamed-type-name>`: lambdas, and types without a name.

use super::node::{Id, Node, Piece};
use super::parser::Parser;

impl Parser<'_> {
    pub(super) fn unnamed_name(&mut self) -> Option<Id> {
        match self.take(2)? {
            "Ut" => self.numbered("{unnamed type#"),
            "Ub" => self.numbered("{block literal#"),
            "Ul" => self.lambda(),
            _ => None,
        }
    }

    fn numbered(&mut self, text: &'static str) -> Option<Id> {
        let number = self.ordinal()?.checked_add(1)? as u64;
        Some(self.sequence(vec![
            Piece::Text(text),
            Piece::Number(number),
            Piece::Text("}"),
        ]))
    }

    fn lambda(&mut self) -> Option<Id> {
        let forwards = std::mem::replace(&mut self.permits_forwards, false);
        self.lambda_depth += 1;
        self.has_inner = true;
        let parsed = self.lambda_parameters();
        self.lambda_depth -= 1;
        self.permits_forwards = forwards;
        let (templates, parameters) = parsed?;
        let number = self.ordinal()?.checked_add(1)? as u64;
        let mut pieces = vec![Piece::Text("{lambda")];
        if !templates.is_empty() {
            pieces.extend([Piece::Text("<"), Piece::List(templates), Piece::Text(">")]);
        }
        pieces.extend([
            Piece::Text("("),
            Piece::List(parameters),
            Piece::Text(")#"),
            Piece::Number(number),
            Piece::Text("}"),
        ]);
        Some(self.add(Node::Lambda(pieces)))
    }

    fn lambda_parameters(&mut self) -> Option<(Vec<Id>, Vec<Id>)> {
        let mut templates = Vec::new();
        while self.look(0) == b'T' && matches!(self.look(1), b'y' | b'n' | b't' | b'p' | b'k') {
            templates.push(self.parameter_declaration()?);
        }
        if self.eat("vE") {
            return Some((templates, Vec::new()));
        }
        let parameters = self.list("E", |parser| {
            if parser.eat("Q") {
                parser.expression()?;
            }
            parser.parse_type()
        })?;
        Some((templates, parameters))
    }
}
