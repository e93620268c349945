//! What the image must not contain.

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic, Register};
use leaktap_agent::{CONSTANTS, HEADER_LEN, Shape, text};

fn instructions() -> Vec<iced_x86::Instruction> {
    let code = &text()[..(CONSTANTS - HEADER_LEN) as usize];
    let mut decoder = Decoder::with_ip(64, code, HEADER_LEN, DecoderOptions::NONE);
    decoder.iter().collect()
}

#[test]
fn no_vector_register_is_used() {
    let mut factory = InstructionInfoFactory::new();
    for instruction in instructions() {
        let used = factory.info(&instruction).used_registers();
        let vector = used
            .iter()
            .map(|used| used.register())
            .find(|register| register.is_vector_register() || register.is_mm() || register.is_st());
        assert_eq!(vector, None, "{:#x}: {instruction:?}", instruction.ip());
    }
}

#[test]
fn all_of_it_is_code_that_stays_inside() {
    let end = HEADER_LEN + text().len() as u64;
    for instruction in instructions() {
        let at = instruction.ip();
        assert!(!instruction.is_invalid(), "{at:#x}");
        let near = instruction.near_branch_target();
        assert!(
            near == 0 || (HEADER_LEN..end).contains(&near),
            "{at:#x} leaves the image"
        );
        if instruction.flow_control() == FlowControl::IndirectCall {
            let by = (
                instruction.memory_base(),
                instruction.memory_displacement64(),
            );
            let (descriptor, below_sp) = ((Register::R11, 8), (Register::RSP, (-8_i64) as u64));
            assert!(by == descriptor || by == below_sp, "{at:#x}: {by:?}");
        }
        if instruction.is_ip_rel_memory_operand() {
            let target = instruction.ip_rel_memory_address();
            assert!(target < end, "{at:#x} refers outside");
        }
    }
}

#[test]
fn the_kernel_is_called_by_syscall_alone() {
    let calls = instructions();
    assert!(calls.iter().any(|i| i.mnemonic() == Mnemonic::Syscall));
    assert!(
        !calls
            .iter()
            .any(|i| matches!(i.mnemonic(), Mnemonic::Int | Mnemonic::Sysenter))
    );
}

/// A program may have set the fs base to anything: what lies there is not for us to read.
#[test]
fn no_memory_is_read_by_fs() {
    let all = instructions();
    let reads = all.iter().filter(|i| i.mnemonic() == Mnemonic::Rdfsbase);
    assert_eq!(reads.count(), 8);
    let by_fs = |i: &&iced_x86::Instruction| i.segment_prefix() == iced_x86::Register::FS;
    assert_eq!(all.iter().find(by_fs), None);
}

#[test]
fn entry_points_are_in_the_text() {
    let end = HEADER_LEN + text().len() as u64;
    use Shape::{
        Around, AroundThrowing, Before, Change, FullAround, FullAroundThrowing, FullBefore, Gate,
    };
    let (lean, full) = (
        [Around, AroundThrowing, Before],
        [FullAround, FullAroundThrowing, FullBefore, Gate, Change],
    );
    for shape in lean.into_iter().chain(full) {
        assert!((HEADER_LEN..end).contains(&shape.entry()));
    }
}
