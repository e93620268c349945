use std::fmt;

use leaktap_memory::Addr;
use nix::libc::user_regs_struct;

/// The general registers of a stopped thread: `user_regs_struct` of sys/user.h.
#[derive(Clone, Copy)]
pub struct Registers(pub(crate) user_regs_struct);

impl Registers {
    /// rip: the next instruction. After an int3 it is the byte behind it.
    pub fn ip(&self) -> Addr {
        Addr::new(self.0.rip)
    }

    /// Lets the thread go on at `ip`.
    pub fn set_ip(&mut self, ip: Addr) {
        self.0.rip = ip.get();
    }

    /// rsp.
    pub fn sp(&self) -> Addr {
        Addr::new(self.0.rsp)
    }

    /// Sets rsp.
    pub fn set_sp(&mut self, sp: Addr) {
        self.0.rsp = sp.get();
    }

    /// rbp.
    pub fn bp(&self) -> u64 {
        self.0.rbp
    }

    /// r11, which a call may change and no argument is passed in.
    pub fn r11(&self) -> u64 {
        self.0.r11
    }

    /// Integer argument `n` of a function that has just been entered (System V psABI 3.2.3): rdi,
    /// rsi, rdx, rcx, r8, r9; zero for those passed on the stack.
    pub fn argument(&self, n: usize) -> u64 {
        let all = [
            self.0.rdi, self.0.rsi, self.0.rdx, self.0.rcx, self.0.r8, self.0.r9,
        ];
        all.get(n).copied().unwrap_or(0)
    }

    /// Sets integer argument `n`; does nothing for those passed on the stack.
    pub fn set_argument(&mut self, n: usize, value: u64) {
        let r = &mut self.0;
        let all = [
            &mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.rcx, &mut r.r8, &mut r.r9,
        ];
        if let Some(register) = all.into_iter().nth(n) {
            *register = value;
        }
    }

    /// rax: a function's integer result.
    pub fn result(&self) -> u64 {
        self.0.rax
    }

    /// Sets rax.
    pub fn set_result(&mut self, result: u64) {
        self.0.rax = result;
    }

    /// orig_rax: the number of the system call that the thread stopped in, if it is in one.
    pub fn system_call(&self) -> Option<u64> {
        (self.0.orig_rax.cast_signed() >= 0).then_some(self.0.orig_rax)
    }

    /// Sets orig_rax. With none, the kernel does not restart the system call that it interrupted:
    /// for moving a thread elsewhere.
    pub fn set_system_call(&mut self, number: Option<u64>) {
        self.0.orig_rax = number.unwrap_or(u64::MAX);
    }

    /// The base of fs: the thread pointer.
    pub fn fs_base(&self) -> u64 {
        self.0.fs_base
    }

    /// The argument registers of a system call (`syscall` takes r10 where a call takes rcx).
    pub(crate) fn set_call(&mut self, number: i64, arguments: [u64; 6]) {
        let r = &mut self.0;
        [r.rdi, r.rsi, r.rdx, r.r10, r.r8, r.r9] = arguments;
        r.rax = number.cast_unsigned();
    }
}

impl fmt::Debug for Registers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registers")
            .field("ip", &self.ip())
            .field("sp", &self.sp())
            .field("bp", &Addr::new(self.bp()))
            .field("rax", &Addr::new(self.result()))
            .field("orig_rax", &self.0.orig_rax.cast_signed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_psabi() {
        let mut registers = Registers(crate::sys::no_registers());
        for n in 0..7 {
            registers.set_argument(n, n as u64 + 1);
        }
        let r = registers.0;
        assert_eq!([r.rdi, r.rsi, r.rdx, r.rcx, r.r8, r.r9], [1, 2, 3, 4, 5, 6]);
        assert_eq!(registers.argument(3), 4);
        assert_eq!(registers.argument(6), 0);
    }

    #[test]
    fn no_system_call_is_minus_one() {
        let mut registers = Registers(crate::sys::no_registers());
        assert_eq!(registers.system_call(), Some(0));
        registers.set_system_call(None);
        assert_eq!(registers.0.orig_rax.cast_signed(), -1);
        assert_eq!(registers.system_call(), None);
    }
}
