//! What a mangled name says, as a graph: what a substitution stands for is there once.

/// A node's index.
pub(super) type Id = u32;

/// `const`, `volatile` and `restrict` behind a type or a member function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Qualifiers {
    pub(super) is_const: bool,
    pub(super) is_volatile: bool,
    pub(super) is_restrict: bool,
}

impl Qualifiers {
    /// Those that are not among `others`, too.
    pub(super) fn without(self, others: Qualifiers) -> Qualifiers {
        Qualifiers {
            is_const: self.is_const && !others.is_const,
            is_volatile: self.is_volatile && !others.is_volatile,
            is_restrict: self.is_restrict && !others.is_restrict,
        }
    }
}

/// `&` or `&&` behind a member function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reference {
    #[default]
    None,
    Lvalue,
    Rvalue,
}

/// Types in brackets, and what is behind them.
#[derive(Clone, Debug, Default)]
pub(super) struct Signature {
    pub(super) result: Option<Id>,
    pub(super) parameters: Vec<Id>,
    pub(super) qualifiers: Qualifiers,
    pub(super) reference: Reference,
    /// ` noexcept` and its kin.
    pub(super) exceptions: Option<Id>,
}

#[derive(Clone, Debug)]
pub(super) enum Node<'a> {
    Text(&'a str),
    /// One after the other.
    Sequence(Vec<Piece<'a>>),
    /// `a::b`
    Nested(Id, Id),
    /// `a<b, c>`
    Template(Id, Vec<Id>),
    Constructor(Id),
    Destructor(Id),
    Function {
        name: Id,
        signature: Signature,
    },
    Qualified(Id, Qualifiers),
    /// `*`, `&` or `&&` behind a type.
    Pointer(Id, &'static str),
    Array {
        of: Id,
        size: Option<Id>,
    },
    FunctionType(Signature),
    MemberPointer {
        class: Id,
        member: Id,
    },
    /// Template arguments that stand for one parameter.
    Arguments(Vec<Id>),
    /// The same where the parameter is used: one of them at a time.
    Pack(Vec<Id>),
    /// `a...`, or for each of the pack in it, once.
    Expansion(Id),
    /// How many are in a pack.
    Count(Id),
    /// What a template parameter stands for; `auto` in the parameters of a lambda.
    Parameter {
        index: usize,
        argument: Option<Id>,
    },
    /// A lambda, whose parameters are its own.
    Lambda(Vec<Piece<'a>>),
}

/// A part of a [`Node::Sequence`].
#[derive(Clone, Debug)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    Number(u64),
    Node(Id),
    /// In brackets unless it is a name.
    Operand(Id),
    /// With commas between.
    List(Vec<Id>),
}

impl Node<'_> {
    /// The same of other nodes, but for lambdas and functions: what is in them is their own.
    pub(super) fn map(&self, to: &mut impl FnMut(Id) -> Id) -> Self {
        let all = |ids: &[Id], to: &mut dyn FnMut(Id) -> Id| -> Vec<Id> {
            ids.iter().map(|id| to(*id)).collect()
        };
        match self {
            Node::Text(_) | Node::Lambda(_) | Node::Function { .. } | Node::Parameter { .. } => {
                self.clone()
            }
            Node::Sequence(pieces) => {
                let pieces = pieces.iter().map(|piece| match piece {
                    Piece::Node(id) => Piece::Node(to(*id)),
                    Piece::Operand(id) => Piece::Operand(to(*id)),
                    Piece::List(ids) => Piece::List(all(ids, to)),
                    Piece::Text(_) | Piece::Number(_) => piece.clone(),
                });
                Node::Sequence(pieces.collect())
            }
            Node::Nested(scope, name) => Node::Nested(to(*scope), to(*name)),
            Node::Template(name, arguments) => Node::Template(to(*name), all(arguments, to)),
            Node::Constructor(of) => Node::Constructor(to(*of)),
            Node::Destructor(of) => Node::Destructor(to(*of)),
            Node::Qualified(of, qualifiers) => Node::Qualified(to(*of), *qualifiers),
            Node::Pointer(of, symbol) => Node::Pointer(to(*of), symbol),
            Node::Array { of, size } => Node::Array {
                of: to(*of),
                size: size.map(to),
            },
            Node::FunctionType(signature) => Node::FunctionType(Signature {
                result: signature.result.map(&mut *to),
                parameters: all(&signature.parameters, to),
                exceptions: signature.exceptions.map(to),
                ..*signature
            }),
            Node::MemberPointer { class, member } => Node::MemberPointer {
                class: to(*class),
                member: to(*member),
            },
            Node::Arguments(ids) => Node::Arguments(all(ids, to)),
            Node::Pack(ids) => Node::Pack(all(ids, to)),
            Node::Expansion(of) => Node::Expansion(to(*of)),
            Node::Count(of) => Node::Count(to(*of)),
        }
    }
}
