//! Entries as a compiler might write them, with instructions by chance.

use super::SECTION;
use crate::Random;

/// Where the functions are.
pub(super) const CODE: u64 = 0x2_0000;

/// Adds an entry that others refer to (CIE), and some that refer to it (FDE).
pub(super) fn append(section: &mut Vec<u8>, is_eh: bool, random: &mut Random) {
    let cie = section.len();
    let id = if is_eh { 0 } else { u32::MAX };
    let mut body = id.to_le_bytes().to_vec();
    match is_eh {
        true => body.extend_from_slice(random.of(&[
            b"\x01zR\0\x01\x78\x10\x01\x1b".as_slice(),
            b"\x01zRS\0\x01\x78\x10\x01\x1b",
            b"\x03zRS\0\x01\x78\x10\x01\x1b",
            b"\x01zPLR\0\x01\x78\x10\x07\x9b\0\x10\0\0\x1b\x1b",
            b"\x01\0\x01\x78\x10",
        ])),
        // Version 4 has the sizes of an address and of a segment selector.
        false => body.extend_from_slice(random.of(&[
            b"\x04\0\x08\0\x01\x78\x10".as_slice(),
            b"\x03\0\x01\x78\x10",
            b"\x01\0\x02\x70\x10",
        ])),
    }
    body.extend(b"\x0c\x07\x08\x90\x01"); // CFA is rsp + 8, rip is at CFA - 8
    if random.one_in(4) {
        instructions(&mut body, random);
    }
    entry(section, body);
    for _ in 0..1 + random.below(3) {
        function(section, cie, is_eh, random);
    }
}

fn function(section: &mut Vec<u8>, cie: usize, is_eh: bool, random: &mut Random) {
    let field = section.len() + 4;
    let start = CODE + random.below(0x400) as u64;
    let len = 1 + random.below(0x80) as u32;
    let mut body = Vec::new();
    // (A CIE without augmentation has absolute addresses in .eh_frame, too: then this is nonsense.)
    if is_eh {
        body.extend(((field - cie) as u32).to_le_bytes());
        let from = SECTION + field as u64 + 4;
        body.extend((start.wrapping_sub(from) as u32).to_le_bytes());
        body.extend(len.to_le_bytes());
        body.push(0); // no augmentation data
    } else {
        body.extend((cie as u32).to_le_bytes());
        body.extend(start.to_le_bytes());
        body.extend(u64::from(len).to_le_bytes());
    }
    instructions(&mut body, random);
    entry(section, body);
}

/// With its length, padded by nops.
fn entry(section: &mut Vec<u8>, mut body: Vec<u8>) {
    body.resize((body.len() + 4).next_multiple_of(8) - 4, 0);
    section.extend((body.len() as u32).to_le_bytes());
    section.extend(body);
}

/// Call frame instructions (DWARF 5, section 6.4.2).
fn instructions(body: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.below(16) {
        let (register, factor) = (
            random.of(&[3_u8, 6, 6, 7, 12, 16, 99]),
            random.below(12) as u8,
        );
        match random.below(15) {
            0..3 => body.push(0x40 | random.below(0x20) as u8), // advance_loc
            3 => body.extend([0x80 | register & 0x3f, factor]), // offset
            4 => body.extend([0xc0 | register & 0x3f]),         // restore
            5 => body.extend([0x0c, register, 8 * factor]),     // def_cfa
            6 => body.extend([0x0d, register]),                 // def_cfa_register
            7 => body.extend([0x0e, 8 * factor]),               // def_cfa_offset
            8 => body.push(random.of(&[0x0a, 0x0b])),           // remember_state, restore_state
            9 => body.extend([random.of(&[0x07, 0x08]), register]), // undefined, same_value
            10 => body.extend([random.of(&[0x05, 0x09, 0x14, 0x15]), register, factor]),
            11 => {
                body.push(0x0f); // def_cfa_expression
                expression(body, random);
            }
            12 => {
                body.extend([random.of(&[0x10, 0x16]), register]); // expression, val_expression
                expression(body, random);
            }
            13 => {
                body.push(random.of(&[0x02, 0x03, 0x04, 0x01, 0x2e, 0x13, 0x12]));
                body.extend(random.edge().to_le_bytes());
            }
            _ => body.push(random.word() as u8),
        }
    }
}

/// With its length: what a linkage table has, or a few operations.
fn expression(body: &mut Vec<u8>, random: &mut Random) {
    const LINKAGE_TABLE: [u8; 11] = [0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22];
    if random.one_in(3) {
        body.push(LINKAGE_TABLE.len() as u8);
        return body.extend(LINKAGE_TABLE);
    }
    let mut operations = vec![
        random.of(&[0x77, 0x77, 0x76, 0x70]),
        random.word() as u8 & 0x7f,
    ];
    for _ in 0..random.below(4) {
        operations.push(random.of(&[0x06, 0x1a, 0x22, 0x24, 0x2a, 0x3f, 0x96, 0x08]));
    }
    body.push(operations.len() as u8);
    body.extend(operations);
}
