mod columns;
mod linkage_table;

pub(super) use columns::{BP, RETURN_AT, SP};
pub(super) use linkage_table::threshold;
