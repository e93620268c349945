//! Template arguments and parameters.

use std::collections::HashMap;

use super::node::{Id, Node, Piece};
use super::parser::Parser;

impl Parser<'_> {
    /// `<template-args>`. Those of an encoding's own name (`is_outermost`) are what `T_` means.
    pub(super) fn template_arguments(&mut self, is_outermost: bool) -> Option<Vec<Id>> {
        self.expect("I")?;
        let takes = std::mem::replace(&mut self.takes_arguments, true);
        if is_outermost {
            self.outermost.clear();
        }
        let mut arguments = Vec::new();
        while !self.eat("E") {
            if self.eat("Q") {
                self.expression()?;
                continue;
            }
            let argument = self.template_argument()?;
            arguments.push(argument);
            if is_outermost {
                let parameter = match self.node(argument) {
                    Some(Node::Arguments(all)) => {
                        let pack = Node::Pack(all.clone());
                        self.add(pack)
                    }
                    _ => argument,
                };
                self.outermost.push(parameter);
            }
        }
        self.takes_arguments = takes;
        Some(arguments)
    }

    /// `<template-arg>`
    pub(super) fn template_argument(&mut self) -> Option<Id> {
        self.deeper(Parser::argument_here)
    }

    fn argument_here(&mut self) -> Option<Id> {
        match (self.look(0), self.look(1)) {
            (b'X', _) => {
                self.take(1)?;
                let value = self.expression()?;
                self.expect("E")?;
                Some(value)
            }
            (b'J' | b'I', _) => {
                self.take(1)?;
                let all = self.list("E", Parser::template_argument)?;
                Some(self.add(Node::Arguments(all)))
            }
            (b'L', b'Z') => {
                self.take(2)?;
                let entity = self.encoding(true)?;
                self.expect("E")?;
                Some(entity)
            }
            (b'L', _) => self.literal(),
            (b'T', b'y' | b'n' | b't' | b'p' | b'k') => {
                self.parameter_declaration()?;
                self.template_argument()
            }
            _ => self.parse_type(),
        }
    }

    /// `<template-param>`
    pub(super) fn template_parameter(&mut self) -> Option<Id> {
        self.expect("T")?;
        let mut level = 0;
        if self.eat("L") {
            level = self.number()?.checked_add(1)?;
            self.expect("_")?;
        }
        let index = self.ordinal()?;
        let parameter = Node::Parameter {
            index,
            argument: self.argument(index).filter(|_| self.lambda_depth == 0),
        };
        if self.permits_forwards && level == 0 {
            let forward = self.add(parameter);
            self.forwards.push((forward, index));
            return Some(forward);
        }
        // `auto` in a lambda's parameters is a parameter of a template.
        let is_known = matches!(
            parameter,
            Node::Parameter {
                argument: Some(_),
                ..
            }
        );
        (is_known || self.lambda_depth > 0).then(|| self.add(parameter))
    }

    /// The argument of the name that is being parsed.
    fn argument(&self, index: usize) -> Option<Id> {
        self.outermost.get(index).copied()
    }

    /// What a substitution is where it stands now: `T_` means something else in a lambda's
    /// parameters, and in a function that something else is local to.
    pub(super) fn substituted(&mut self, id: Id) -> Option<Id> {
        match self.has_inner {
            true => self.rewritten(id, &mut HashMap::new()),
            false => Some(id),
        }
    }

    fn rewritten(&mut self, id: Id, known: &mut HashMap<Id, Id>) -> Option<Id> {
        self.rewrites_left = self.rewrites_left.checked_sub(1)?;
        if let Some(known) = known.get(&id) {
            return Some(*known);
        }
        let node = self.node(id)?.clone();
        let mut is_new = false;
        let mut has_failed = false;
        let rewritten = match node {
            Node::Parameter { index, argument } => {
                let now = match self.lambda_depth {
                    0 => self.argument(index).or(argument),
                    _ => None,
                };
                is_new = now != argument;
                let argument = now;
                Node::Parameter { index, argument }
            }
            node => node.map(&mut |child| {
                let rewritten = self.deeper(|parser| parser.rewritten(child, known));
                has_failed |= rewritten.is_none();
                is_new |= rewritten.is_some_and(|rewritten| rewritten != child);
                rewritten.unwrap_or(child)
            }),
        };
        let now = match is_new {
            true => self.add(rewritten),
            false => id,
        };
        known.insert(id, now);
        (!has_failed).then_some(now)
    }

    /// Says what the parameters mean that were met before the arguments, from `first` on.
    pub(super) fn resolve_forwards(&mut self, first: usize) -> Option<()> {
        for (forward, index) in self.forwards.split_off(first) {
            let argument = Some(self.argument(index)?);
            *self.nodes.get_mut(forward as usize)? = Node::Parameter { index, argument };
        }
        Some(())
    }

    /// `<template-param-decl>`: how a parameter of a template of templates or of a lambda is
    /// declared.
    pub(super) fn parameter_declaration(&mut self) -> Option<Id> {
        self.deeper(Parser::declaration_here)
    }

    fn declaration_here(&mut self) -> Option<Id> {
        self.expect("T")?;
        match self.take(1)? {
            "y" => Some(self.text("typename")),
            "n" => self.parse_type(),
            "k" => self.name(None),
            "t" => {
                let all = self.list("E", Parser::parameter_declaration)?;
                Some(self.sequence(vec![
                    Piece::Text("template<"),
                    Piece::List(all),
                    Piece::Text("> typename"),
                ]))
            }
            "p" => {
                let one = self.parameter_declaration()?;
                Some(self.sequence(vec![Piece::Node(one), Piece::Text("...")]))
            }
            _ => None,
        }
    }
}
