use gimli::{
    CfaRule, Encoding, FrameDescriptionEntry, Operation, Register, RegisterRule, UnwindExpression,
    UnwindSection, UnwindTableRow,
};

use super::arch::{self, BP, RETURN_AT, SP};
use super::functions::Bytes;
use crate::{Cfa, SavedBp, Step};

/// The longest expression that is looked at: the linkage table's has nine operations.
const MAX_OPERATIONS: usize = 16;

/// What an entry's CIE and section say about the reading of its rows.
pub(super) struct Conventions<'s, S> {
    section: &'s S,
    encoding: Encoding,
    return_address: Register,
    signal: bool,
}

impl<'s, S> Conventions<'s, S> {
    pub(super) fn of<'a>(section: &'s S, fde: &FrameDescriptionEntry<Bytes<'a>>) -> Self
    where
        S: UnwindSection<Bytes<'a>>,
    {
        Conventions {
            section,
            encoding: fde.cie().encoding(),
            return_address: fde.cie().return_address_register(),
            signal: fde.is_signal_trampoline(),
        }
    }

    /// What `row` says, as far as this crate can follow it.
    pub(super) fn step<'a>(&self, row: &UnwindTableRow<usize>) -> Step
    where
        S: UnwindSection<Bytes<'a>>,
    {
        let return_address = row.register(self.return_address);
        if return_address == Some(RegisterRule::Undefined) {
            return Step::End;
        }
        let step = if self.signal {
            self.signal_frame(row, return_address)
        } else {
            self.call(row, return_address)
        };
        step.unwrap_or(Step::Unsupported)
    }

    fn call<'a>(
        &self,
        row: &UnwindTableRow<usize>,
        return_address: Option<RegisterRule<usize>>,
    ) -> Option<Step>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        let sp = row.register(SP);
        let sp_is_cfa = matches!(sp, None | Some(RegisterRule::ValOffset(0)));
        let at_cfa = return_address == Some(RegisterRule::Offset(RETURN_AT));
        (sp_is_cfa && at_cfa).then_some(())?;
        Some(Step::Call {
            cfa: self.cfa(row.cfa())?,
            bp: self.saved_bp(row.register(BP)),
        })
    }

    /// A signal frame is followed where all three registers are saved at fixed distances from rsp,
    /// as glibc writes it.
    fn signal_frame<'a>(
        &self,
        row: &UnwindTableRow<usize>,
        return_address: Option<RegisterRule<usize>>,
    ) -> Option<Step>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        let Cfa::AtSp { at: sp, plus: 0 } = self.cfa(row.cfa())? else {
            return None;
        };
        let saved_sp = self.saved_at_sp(row.register(SP))?;
        (saved_sp == sp).then_some(())?;
        Some(Step::SignalFrame {
            ip: self.saved_at_sp(return_address)?.try_into().ok()?,
            sp,
            bp: self.saved_at_sp(row.register(BP))?,
        })
    }

    fn cfa<'a>(&self, rule: &CfaRule<usize>) -> Option<Cfa>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        match rule {
            CfaRule::RegisterAndOffset { register, offset } => Self::offset_cfa(*register, *offset),
            CfaRule::Expression(expression) => expression_cfa(&self.operations(*expression)?),
        }
    }

    fn offset_cfa(register: Register, offset: i64) -> Option<Cfa> {
        let offset = offset.try_into().ok()?;
        match register {
            SP => Some(Cfa::Sp(offset)),
            BP => Some(Cfa::Bp(offset)),
            _ => None,
        }
    }

    /// No rule for it means that the function leaves it alone: it is callee-saved.
    fn saved_bp<'a>(&self, rule: Option<RegisterRule<usize>>) -> SavedBp
    where
        S: UnwindSection<Bytes<'a>>,
    {
        match rule {
            None | Some(RegisterRule::SameValue) => SavedBp::Unchanged,
            Some(RegisterRule::Register(BP)) => SavedBp::Unchanged,
            Some(RegisterRule::Offset(offset)) => {
                offset.try_into().map_or(SavedBp::Lost, SavedBp::AtCfa)
            }
            Some(RegisterRule::Expression(expression)) => match self.address(expression) {
                Some((BP, offset)) => SavedBp::AtBp(offset),
                Some((SP, offset)) => SavedBp::AtSp(offset),
                _ => SavedBp::Lost,
            },
            Some(_) => SavedBp::Lost,
        }
    }

    fn saved_at_sp<'a>(&self, rule: Option<RegisterRule<usize>>) -> Option<i32>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        match rule {
            Some(RegisterRule::Expression(expression)) => match self.address(expression)? {
                (SP, offset) => Some(offset),
                _ => None,
            },
            _ => None,
        }
    }

    /// An expression that is a register plus an offset.
    fn address<'a>(&self, expression: UnwindExpression<usize>) -> Option<(Register, i32)>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        match self.operations(expression)?.as_slice() {
            [
                Operation::RegisterOffset {
                    register, offset, ..
                },
            ] => Some((*register, (*offset).try_into().ok()?)),
            _ => None,
        }
    }

    fn operations<'a>(
        &self,
        expression: UnwindExpression<usize>,
    ) -> Option<Vec<Operation<Bytes<'a>>>>
    where
        S: UnwindSection<Bytes<'a>>,
    {
        let expression = expression.get(self.section).ok()?;
        let mut operations = expression.operations(self.encoding);
        let mut all = Vec::new();
        while let Some(operation) = operations.next().ok()? {
            (all.len() < MAX_OPERATIONS).then_some(())?;
            all.push(operation);
        }
        Some(all)
    }
}

fn expression_cfa(operations: &[Operation<Bytes<'_>>]) -> Option<Cfa> {
    let [
        Operation::RegisterOffset {
            register, offset, ..
        },
        then @ ..,
    ] = operations
    else {
        return None;
    };
    let at = (*offset).try_into().ok()?;
    if let Some(from) = arch::threshold(then) {
        return (*register == SP).then_some(Cfa::Plt { offset: at, from });
    }
    let plus = match then {
        [] => return Conventions::<()>::offset_cfa(*register, *offset),
        [
            Operation::Deref {
                size: 8,
                space: false,
                ..
            },
        ] => 0,
        [
            Operation::Deref {
                size: 8,
                space: false,
                ..
            },
            Operation::PlusConstant { value },
        ] => (*value).try_into().ok()?,
        _ => return None,
    };
    match *register {
        BP => Some(Cfa::AtBp { at, plus }),
        SP => Some(Cfa::AtSp { at, plus }),
        _ => None,
    }
}
