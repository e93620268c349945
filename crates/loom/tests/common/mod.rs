//! How far loom goes.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use leaktap_loom::{Ledger, with_ledger};

/// Switches away from a thread that could go on, in one order: most bugs need one or two.
const PREEMPTIONS: usize = 2;

/// Tries the orders of `scenario`.
pub(crate) fn scenario(scenario: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(PREEMPTIONS);
    builder.max_branches = 10_000;
    builder.check(scenario);
}

/// The same, with a new ledger for blocks at `addresses`.
pub(crate) fn with_new_ledger(
    addresses: &'static [u64],
    test: impl Fn(Ledger<'static>) + Send + Sync + 'static,
) {
    scenario(move || with_ledger(addresses, &test));
}
