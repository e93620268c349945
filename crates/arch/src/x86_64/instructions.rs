//! Opcodes (Intel SDM, volume 2).

/// Bytes of the longest instruction (2.3.11).
pub const LONGEST: usize = 15;

/// `ret`.
pub const RET: u8 = 0xc3;

/// `endbr64`, the landing pad of indirect branches under CET.
pub const ENDBR64: [u8; 4] = [0xf3, 0x0f, 0x1e, 0xfa];

/// `jmp rel32`: a distance from its end follows.
pub const JUMP: u8 = 0xe9;

/// `call rel32`.
pub const CALL: u8 = 0xe8;

/// `jmp [rip+rel32]`.
pub const JUMP_BY_WORD: [u8; 2] = [0xff, 0x25];

/// `call [rip+rel32]`.
pub const CALL_BY_WORD: [u8; 2] = [0xff, 0x15];

/// `push imm32`.
pub const PUSH: u8 = 0x68;
