//! Which register each column of call frame information is of (psABI x86-64, 3.6.2).

use gimli::{Register, X86_64};
use leaktap_arch::RETURN_LEN;

/// rsp: the caller's is the CFA unless it is said otherwise.
pub(in crate::build) const SP: Register = X86_64::RSP;

/// rbp: callee-saved, and alone in that among those that are followed.
pub(in crate::build) const BP: Register = X86_64::RBP;

/// The return address, by which rip is named.
pub(super) const IP: Register = X86_64::RA;

/// Where a call has put the return address, from the CFA.
pub(in crate::build) const RETURN_AT: i64 = -(RETURN_LEN as i64);
