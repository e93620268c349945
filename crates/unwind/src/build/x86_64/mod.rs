mod columns;
mod effect;
mod instruction;
mod linkage_table;

pub(super) use columns::{BP, RETURN_AT, SP};
pub(super) use instruction::{Read, Reader, Then};
pub(super) use linkage_table::threshold;
