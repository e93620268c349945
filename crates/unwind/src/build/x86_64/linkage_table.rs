use gimli::Operation;

use super::columns::IP;
use crate::build::functions::Bytes;

/// `from` in `+ ((ip & 15) >= from) << 3`, which linkers write for the linkage table (binutils,
/// `bfd/elfxx-x86.c`): 11, with IBT 5 or 9, after the slot's push.
pub(in crate::build) fn threshold(operations: &[Operation<Bytes<'_>>]) -> Option<i16> {
    match operations {
        [
            Operation::RegisterOffset {
                register: IP,
                offset: 0,
                ..
            },
            Operation::UnsignedConstant { value: 15 },
            Operation::And,
            Operation::UnsignedConstant { value: from },
            Operation::Ge,
            Operation::UnsignedConstant { value: 3 },
            Operation::Shl,
            Operation::Plus,
        ] => (*from).try_into().ok(),
        _ => None,
    }
}
