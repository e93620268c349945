//! What an instruction does to what is known of its function's frame (Intel SDM, volume 2).

use iced_x86::{
    ConditionCode, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};

use crate::build::frame_state::{Bp, State};

/// Registers that a called function leaves as they were, rbp and rsp apart (psABI, 3.2.1).
const KEPT: [Register; 5] = [
    Register::RBX,
    Register::R12,
    Register::R13,
    Register::R14,
    Register::R15,
];

impl State {
    /// What holds after `instruction`, where it goes on to the next one.
    pub(super) fn after(
        self,
        instruction: &Instruction,
        info: &mut InstructionInfoFactory,
    ) -> State {
        let before = self;
        let mut after = State {
            compared: false,
            ..before
        };
        if before.outermost {
            return after;
        }
        match instruction.mnemonic() {
            Mnemonic::Call if instruction.near_branch_target() == instruction.next_ip() => {
                after.sp = before.sp.and_then(|sp| sp.checked_add(8));
            }
            Mnemonic::Call => after.forget_what_calls_change(),
            Mnemonic::Push => after.push(instruction),
            Mnemonic::Pop => after.pop(instruction),
            Mnemonic::Leave => after.leave(),
            Mnemonic::Add | Mnemonic::Sub if is(instruction, 0, Register::RSP) => {
                after.sp = before.sp.and_then(|sp| moved(sp, instruction));
            }
            Mnemonic::Mov | Mnemonic::Lea => after.assign(instruction, info),
            Mnemonic::Cmp => after.compared = before.compares(instruction),
            Mnemonic::Xor if clears_bp(instruction) && before.has_callers_bp() => {
                after.outermost = true;
            }
            Mnemonic::Pushfq => after.sp = before.sp.and_then(|sp| sp.checked_add(8)),
            Mnemonic::Popfq => after.sp = before.sp.and_then(|sp| sp.checked_sub(8)),
            _ => after.forget_what_is_written(instruction, info),
        }
        after
    }

    /// What holds where a conditional jump is taken, or not.
    pub(super) fn branched(self, instruction: &Instruction, taken: bool) -> State {
        let equal = match instruction.condition_code() {
            ConditionCode::e => taken,
            ConditionCode::ne => !taken,
            _ => false,
        };
        let sp = match self.copy {
            Some((_, at)) if self.compared && equal => Some(at),
            _ => self.sp,
        };
        State {
            sp,
            compared: false,
            ..self
        }
    }

    fn push(&mut self, instruction: &Instruction) {
        let pushed = -instruction.stack_pointer_increment();
        self.sp = self.sp.and_then(|sp| sp.checked_add(pushed));
        if is(instruction, 0, Register::RBP) && pushed == 8 {
            self.save_bp(self.sp);
        }
    }

    fn pop(&mut self, instruction: &Instruction) {
        let from = self.sp;
        let popped = instruction.stack_pointer_increment();
        self.sp = from.and_then(|sp| sp.checked_sub(popped));
        match instruction.op0_register().full_register() {
            Register::RBP => self.restore_bp(from.filter(|_| popped == 8)),
            Register::RSP => self.sp = None,
            other => self.forget_copy(other),
        }
    }

    fn leave(&mut self) {
        let Bp::Frame(at) = self.bp else {
            (self.sp, self.bp) = (None, Bp::Other);
            return;
        };
        self.sp = at.checked_sub(8);
        self.restore_bp(Some(at));
    }

    /// The caller's rbp, if it is there, is written to the CFA - `at`.
    fn save_bp(&mut self, at: Option<i32>) {
        if self.has_callers_bp() {
            self.saved = at.and_then(i32::checked_neg);
        }
    }

    /// What is at the CFA - `at` gets into rbp.
    fn restore_bp(&mut self, at: Option<i32>) {
        let saved = self.saved.filter(|saved| at == saved.checked_neg());
        match saved {
            Some(_) => (self.bp, self.saved) = (Bp::Caller, None),
            None => self.bp = Bp::Other,
        }
    }

    fn has_callers_bp(&self) -> bool {
        self.bp == Bp::Caller && self.saved.is_none()
    }

    /// `mov` and `lea`.
    fn assign(&mut self, instruction: &Instruction, info: &mut InstructionInfoFactory) {
        let slot = self.slot(instruction);
        if instruction.mnemonic() == Mnemonic::Mov && instruction.op0_kind() == OpKind::Memory {
            if is(instruction, 1, Register::RBP) {
                self.save_bp(slot);
            }
            return;
        }
        let is_load =
            instruction.mnemonic() == Mnemonic::Mov && instruction.op1_kind() == OpKind::Memory;
        let to = instruction.op0_register();
        if is_load && to == Register::RBP {
            self.restore_bp(slot);
            return;
        }
        let value = match instruction.mnemonic() {
            Mnemonic::Lea => slot,
            _ if is_load => None,
            _ => self.in_register(instruction.op1_register()),
        };
        match (to, value) {
            (Register::RBP, Some(at)) => self.bp = Bp::Frame(at),
            (Register::RSP, value) => self.sp = value,
            (to, Some(at)) if to.is_gpr64() => self.copy = Some((to as u8, at)),
            _ => self.forget_what_is_written(instruction, info),
        }
    }

    /// CFA - the register, if that is known.
    fn in_register(&self, register: Register) -> Option<i32> {
        match register {
            Register::RSP => self.sp,
            Register::RBP => match self.bp {
                Bp::Frame(at) => Some(at),
                _ => None,
            },
            other => {
                let (copy, at) = self.copy?;
                (copy == other as u8).then_some(at)
            }
        }
    }

    /// CFA - the address of the memory operand, if it is a register plus a number.
    fn slot(&self, instruction: &Instruction) -> Option<i32> {
        if instruction.memory_index() != Register::None
            || instruction.segment_prefix() != Register::None
        {
            return None;
        }
        let at = self.in_register(instruction.memory_base())?;
        let more = i32::try_from(instruction.memory_displacement64().cast_signed()).ok()?;
        at.checked_sub(more)
    }

    /// Whether rsp and a copy of an earlier one are compared.
    fn compares(&self, instruction: &Instruction) -> bool {
        let is_copy = |operand| {
            let register = instruction.op_register(operand);
            self.copy.is_some_and(|(copy, _)| copy == register as u8)
        };
        is(instruction, 0, Register::RSP) && is_copy(1)
            || is(instruction, 1, Register::RSP) && is_copy(0)
    }

    fn forget_copy(&mut self, written: Register) {
        let is_it = |(copy, _): &(u8, i32)| *copy == written as u8;
        self.copy = self.copy.filter(|copy| !is_it(copy));
    }

    fn forget_what_calls_change(&mut self) {
        let is_kept = |(copy, _): &(u8, i32)| KEPT.iter().any(|kept| *kept as u8 == *copy);
        self.copy = self.copy.filter(is_kept);
    }

    fn forget_what_is_written(
        &mut self,
        instruction: &Instruction,
        info: &mut InstructionInfoFactory,
    ) {
        let matters =
            |register: Register| matches!(register.full_register(), Register::RSP | Register::RBP);
        let mut operands = (0..instruction.op_count()).map(|op| instruction.op_register(op));
        let is_implicit = instruction.is_stack_instruction();
        if self.copy.is_none() && !is_implicit && !operands.any(matters) {
            return;
        }
        for used in info.info(instruction).used_registers() {
            if matches!(
                used.access(),
                OpAccess::Read | OpAccess::CondRead | OpAccess::None
            ) {
                continue;
            }
            match used.register().full_register() {
                Register::RSP => self.sp = None,
                Register::RBP => self.bp = Bp::Other,
                other => self.forget_copy(other),
            }
        }
    }
}

fn is(instruction: &Instruction, operand: u32, register: Register) -> bool {
    instruction.op_count() > operand
        && instruction.op_kind(operand) == OpKind::Register
        && instruction.op_register(operand) == register
}

/// CFA - rsp after `add rsp, n` or `sub rsp, n`, if it was `sp` before.
fn moved(sp: i32, instruction: &Instruction) -> Option<i32> {
    let is_number = matches!(
        instruction.op1_kind(),
        OpKind::Immediate8to64 | OpKind::Immediate32to64
    );
    let by = is_number.then(|| instruction.immediate(1).cast_signed())?;
    let by = i32::try_from(by).ok()?;
    match instruction.mnemonic() {
        Mnemonic::Sub => sp.checked_add(by),
        _ => sp.checked_sub(by),
    }
}

/// What a thread's first function does, for whoever follows frame pointers (psABI, 3.4.1).
fn clears_bp(instruction: &Instruction) -> bool {
    let is_bp = |register| is(instruction, 0, register) && is(instruction, 1, register);
    is_bp(Register::RBP) || is_bp(Register::EBP)
}
