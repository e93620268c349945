//! What the image must not contain.

use iced_x86::{Decoder, DecoderOptions, FlowControl, InstructionInfoFactory, Mnemonic};
use leaktap_agent::{CONSTANTS, FsBase, HEADER_LEN, Shape, text};

fn instructions(fs_base: FsBase) -> Vec<iced_x86::Instruction> {
    let mut text = text(fs_base);
    text.truncate((CONSTANTS - HEADER_LEN) as usize);
    let mut decoder = Decoder::with_ip(64, &text, HEADER_LEN, DecoderOptions::NONE);
    decoder.iter().collect()
}

#[test]
fn no_vector_register_is_used() {
    let mut factory = InstructionInfoFactory::new();
    for fs_base in [FsBase::Instruction, FsBase::SelfPointer] {
        for instruction in instructions(fs_base) {
            let used = factory.info(&instruction).used_registers();
            let vector = used.iter().map(|used| used.register()).find(|register| {
                register.is_vector_register() || register.is_mm() || register.is_st()
            });
            assert_eq!(vector, None, "{:#x}: {instruction:?}", instruction.ip());
        }
    }
}

#[test]
fn all_of_it_is_code_that_stays_inside() {
    let end = HEADER_LEN + text(FsBase::Instruction).len() as u64;
    for instruction in instructions(FsBase::Instruction) {
        let at = instruction.ip();
        assert!(!instruction.is_invalid(), "{at:#x}");
        let near = instruction.near_branch_target();
        assert!(
            near == 0 || (HEADER_LEN..end).contains(&near),
            "{at:#x} leaves the image"
        );
        if instruction.flow_control() == FlowControl::IndirectCall {
            assert_eq!(
                instruction.memory_displacement64(),
                8,
                "only through a descriptor"
            );
        }
        if instruction.is_ip_rel_memory_operand() {
            let target = instruction.ip_rel_memory_address();
            assert!(target < end, "{at:#x} refers outside");
        }
    }
}

#[test]
fn the_kernel_is_called_by_syscall_alone() {
    let calls = instructions(FsBase::Instruction);
    assert!(calls.iter().any(|i| i.mnemonic() == Mnemonic::Syscall));
    assert!(
        !calls
            .iter()
            .any(|i| matches!(i.mnemonic(), Mnemonic::Int | Mnemonic::Sysenter))
    );
}

#[test]
fn the_fs_base_is_read_as_the_kernel_allows() {
    let count = |fs_base, mnemonic| {
        instructions(fs_base)
            .iter()
            .filter(|i| i.mnemonic() == mnemonic)
            .count()
    };
    assert_eq!(count(FsBase::Instruction, Mnemonic::Rdfsbase), 3);
    assert_eq!(count(FsBase::SelfPointer, Mnemonic::Rdfsbase), 0);
    let from_memory = instructions(FsBase::SelfPointer);
    let loads = from_memory
        .iter()
        .filter(|i| i.segment_prefix() == iced_x86::Register::FS);
    assert_eq!(loads.count(), 3);
}

#[test]
fn entry_points_are_in_the_text() {
    let end = HEADER_LEN + text(FsBase::Instruction).len() as u64;
    for shape in [Shape::Around, Shape::AroundThrowing, Shape::Before] {
        assert!((HEADER_LEN..end).contains(&shape.entry()));
    }
}
