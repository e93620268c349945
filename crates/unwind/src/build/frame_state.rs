use crate::{Cfa, Rule, SavedBp, Step};

/// What is known of a function's frame before one of its instructions. Places in it are told by how
/// far they are below the CFA, the canonical frame address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::build) struct State {
    /// CFA - rsp.
    pub(in crate::build) sp: Option<i32>,
    pub(in crate::build) bp: Bp,
    /// Where the caller's rbp is, from the CFA.
    pub(in crate::build) saved: Option<i32>,
    /// Another register, by number, and CFA - what it holds.
    pub(in crate::build) copy: Option<(u8, i32)>,
    /// rsp has just been compared with that.
    pub(in crate::build) compared: bool,
    /// It is a thread's first function, and has no caller.
    pub(in crate::build) outermost: bool,
}

/// What rbp is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::build) enum Bp {
    /// What the caller had in it.
    Caller,
    /// CFA - this.
    Frame(i32),
    /// Something else.
    Other,
}

impl State {
    /// At the first instruction of a function.
    pub(in crate::build) const ENTRY: State = State {
        sp: Some(8),
        bp: Bp::Caller,
        saved: None,
        copy: None,
        compared: false,
        outermost: false,
    };

    /// In a function that nobody calls.
    pub(in crate::build) const OUTERMOST: State = State {
        outermost: true,
        ..State::ENTRY
    };

    /// What holds where both ways meet.
    pub(in crate::build) fn join(self, other: State) -> State {
        if self == other {
            return self;
        }
        let same = self.outermost == other.outermost;
        State {
            sp: self.sp.filter(|_| same && self.sp == other.sp),
            bp: match same && self.bp == other.bp {
                true => self.bp,
                false => Bp::Other,
            },
            saved: self.saved.filter(|_| self.saved == other.saved),
            copy: self.copy.filter(|_| self.copy == other.copy),
            compared: self.compared && other.compared,
            outermost: self.outermost && other.outermost,
        }
    }

    /// Whether the function may return here.
    pub(in crate::build) fn may_return(self) -> bool {
        !self.outermost && matches!(self.sp, None | Some(8))
    }

    /// Whether it does return here, and leaves its caller's rbp as it was.
    pub(in crate::build) fn returns(self) -> bool {
        !self.outermost && self.sp == Some(8) && self.bp == Bp::Caller
    }

    /// How to get to the caller.
    pub(in crate::build) fn rule(self) -> Rule {
        let cfa = match (self.sp, self.bp) {
            _ if self.outermost => return Rule::pack(Step::End).derived(),
            (Some(sp), _) => Cfa::Sp(sp),
            (None, Bp::Frame(at)) => Cfa::Bp(at),
            _ => return Rule::pack(Step::Unsupported).derived(),
        };
        let bp = match (self.bp, self.saved) {
            (Bp::Caller, _) => SavedBp::Unchanged,
            (_, Some(at)) => SavedBp::AtCfa(at),
            _ => SavedBp::Lost,
        };
        Rule::pack(Step::Call { cfa, bp }).derived()
    }
}
