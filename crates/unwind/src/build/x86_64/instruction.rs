use iced_x86::{
    Code, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory, Mnemonic,
    OpKind,
};

use crate::build::frame_state::State;

/// Reads instructions.
pub(in crate::build) struct Reader {
    info: InstructionInfoFactory,
}

/// An instruction, and where it leads.
pub(in crate::build) struct Read(Instruction);

/// What comes after an instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::build) enum Then {
    /// The next one.
    Next,
    /// The function at that address, or one that is not told here; then the next one, if that
    /// returns.
    Call(Option<u64>),
    /// The one at that address.
    Jump(u64),
    /// That one, or the next.
    Branch(u64),
    /// One that is not told here.
    Somewhere,
    /// The caller.
    Return,
    /// Nothing.
    Stop,
}

impl Reader {
    pub(in crate::build) fn new() -> Reader {
        Reader {
            info: InstructionInfoFactory::new(),
        }
    }

    /// The instruction that `bytes`, which are at `at`, begin with.
    pub(in crate::build) fn read(&mut self, bytes: &[u8], at: u64) -> Option<Read> {
        let bytes = bytes.get(..15).unwrap_or(bytes);
        let mut decoder = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE);
        let instruction = decoder.decode();
        (!instruction.is_invalid()).then_some(Read(instruction))
    }

    /// What holds after `read`, where it goes on to the next instruction or, if `taken`, where it
    /// jumps to.
    pub(in crate::build) fn after(&mut self, read: &Read, before: State, taken: bool) -> State {
        match read.then() {
            Then::Branch(_) => before.branched(&read.0, taken),
            _ => before.after(&read.0, &mut self.info),
        }
    }
}

impl Read {
    pub(in crate::build) fn len(&self) -> usize {
        self.0.len()
    }

    pub(in crate::build) fn then(&self) -> Then {
        let target = self.0.near_branch_target();
        match self.0.flow_control() {
            FlowControl::Next => match self.0.mnemonic() {
                Mnemonic::Hlt => Then::Stop,
                _ => Then::Next,
            },
            // A call of what comes next tells where that is.
            FlowControl::Call if !self.0.is_call_near() || target == self.0.next_ip() => Then::Next,
            FlowControl::Call => Then::Call(Some(target)),
            FlowControl::IndirectCall => Then::Call(None),
            FlowControl::UnconditionalBranch => Then::Jump(target),
            FlowControl::ConditionalBranch => Then::Branch(target),
            FlowControl::XbeginXabortXend => Then::Next,
            FlowControl::IndirectBranch => Then::Somewhere,
            FlowControl::Return => Then::Return,
            FlowControl::Interrupt if self.0.mnemonic() == Mnemonic::Int => Then::Next,
            FlowControl::Interrupt | FlowControl::Exception => Then::Stop,
        }
    }

    /// The address that a `lea` puts into a register, relative to itself: a function's, if it is
    /// that of code.
    pub(in crate::build) fn address_taken(&self) -> Option<u64> {
        let is_lea = self.0.mnemonic() == Mnemonic::Lea && self.0.op1_kind() == OpKind::Memory;
        (is_lea && self.0.is_ip_rel_memory_operand()).then(|| self.0.ip_rel_memory_address())
    }

    /// Whether it fills the room between functions.
    pub(in crate::build) fn is_padding(&self) -> bool {
        matches!(self.0.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
            || matches!(self.0.code(), Code::Add_rm8_r8 | Code::Xchg_r16_AX)
    }
}
