use leaktap_arch::system_calls::SIGRETURN;
use leaktap_memory::Svma;

/// Length of the longer form of that code, in bytes.
pub(super) const LEN: u32 = SIGRETURN[0].len() as u32;

/// Finds the code that returns from signal handlers in `code`, the bytes at address `at` of a file.
///
/// glibc describes its own, but musl's `__restore_rt` and Go's `sigreturn` have no call frame
/// information, and debuggers know them by these bytes (gdb, `gdb/amd64-linux-tdep.c`).
pub fn signal_returns(code: &[u8], at: Svma) -> Vec<Svma> {
    let found = |(offset, window): (usize, &[u8])| {
        let mut forms = SIGRETURN.iter();
        let is_one = forms.any(|form| window.starts_with(form));
        is_one.then_some(Svma(at.0.wrapping_add(offset as u64)))
    };
    (0..code.len())
        .filter_map(|offset| Some((offset, code.get(offset..)?)))
        .filter_map(found)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_both_forms_and_nothing_else() {
        let [long, short] = SIGRETURN;
        let mut code = vec![0x90; 64];
        code[3..12].copy_from_slice(long);
        code[20..27].copy_from_slice(short);
        code[40..48].copy_from_slice(&long[..8]);
        code[60] = 0xb8;
        let found = signal_returns(&code, Svma(0x1000));
        assert_eq!(found, [Svma(0x1003), Svma(0x1014)]);
    }
}
