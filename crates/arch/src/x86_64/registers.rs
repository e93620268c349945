use core::fmt;

use leaktap_memory::Addr;

use super::{ARGUMENTS, RETURN_LEN};

/// The general registers of a stopped thread, by their roles: `user_regs_struct` of sys/user.h.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Registers {
    pub(super) r15: u64,
    pub(super) r14: u64,
    pub(super) r13: u64,
    pub(super) r12: u64,
    pub(super) rbp: u64,
    pub(super) rbx: u64,
    pub(super) r11: u64,
    pub(super) r10: u64,
    pub(super) r9: u64,
    pub(super) r8: u64,
    pub(super) rax: u64,
    pub(super) rcx: u64,
    pub(super) rdx: u64,
    pub(super) rsi: u64,
    pub(super) rdi: u64,
    pub(super) orig_rax: u64,
    pub(super) rip: u64,
    pub(super) cs: u64,
    pub(super) eflags: u64,
    pub(super) rsp: u64,
    pub(super) ss: u64,
    pub(super) fs_base: u64,
    /// The base of gs, ds, es, fs, gs.
    _others: [u64; 5],
}

impl Registers {
    /// rip: the next instruction. After an int3 it is the byte behind it.
    pub fn ip(&self) -> Addr {
        Addr::new(self.rip)
    }

    /// Lets the thread go on at `ip`.
    pub fn set_ip(&mut self, ip: Addr) {
        self.rip = ip.get();
    }

    /// rsp.
    pub fn sp(&self) -> Addr {
        Addr::new(self.rsp)
    }

    /// Sets rsp.
    pub fn set_sp(&mut self, sp: Addr) {
        self.rsp = sp.get();
    }

    /// All that a program may keep a pointer in.
    pub fn words(&self) -> [u64; 16] {
        [
            self.r15, self.r14, self.r13, self.r12, self.rbp, self.rbx, self.r11, self.r10,
            self.r9, self.r8, self.rax, self.rcx, self.rdx, self.rsi, self.rdi, self.rsp,
        ]
    }

    /// rbp.
    pub fn bp(&self) -> u64 {
        self.rbp
    }

    /// r11, which a call may change and no argument is passed in: the agent's stubs use it.
    pub fn scratch(&self) -> u64 {
        self.r11
    }

    /// Lets the thread, which is at the entry of a function or at its `ret`, go on at `ret` as if
    /// it had returned there.
    pub fn return_to(&mut self, ret: Addr) {
        self.set_ip(ret);
        self.set_sp(self.sp().wrapping_offset(RETURN_LEN as i64));
    }

    /// Integer argument `n` of a function that has just been entered (System V psABI 3.2.3): rdi,
    /// rsi, rdx, rcx, r8, r9; zero for those passed on the stack.
    pub fn argument(&self, n: usize) -> u64 {
        let all: [u64; ARGUMENTS] = [self.rdi, self.rsi, self.rdx, self.rcx, self.r8, self.r9];
        all.get(n).copied().unwrap_or(0)
    }

    /// Sets integer argument `n`; does nothing for those passed on the stack.
    pub fn set_argument(&mut self, n: usize, value: u64) {
        let r = self;
        let all: [&mut u64; ARGUMENTS] = [
            &mut r.rdi, &mut r.rsi, &mut r.rdx, &mut r.rcx, &mut r.r8, &mut r.r9,
        ];
        if let Some(register) = all.into_iter().nth(n) {
            *register = value;
        }
    }

    /// rax: a function's integer result.
    pub fn result(&self) -> u64 {
        self.rax
    }

    /// Sets rax.
    pub fn set_result(&mut self, result: u64) {
        self.rax = result;
    }

    /// orig_rax: the number of the system call that the thread stopped in, if it is in one.
    pub fn system_call(&self) -> Option<u64> {
        (self.orig_rax.cast_signed() >= 0).then_some(self.orig_rax)
    }

    /// Sets orig_rax. With none, the kernel does not restart the system call that it interrupted:
    /// for moving a thread elsewhere.
    pub fn set_system_call(&mut self, number: Option<u64>) {
        self.orig_rax = number.unwrap_or(u64::MAX);
    }

    /// The base of fs: the thread pointer.
    pub fn fs_base(&self) -> u64 {
        self.fs_base
    }

    /// The argument registers of a system call (`syscall` takes r10 where a call takes rcx).
    pub fn set_call(&mut self, number: i64, arguments: [u64; 6]) {
        let r = self;
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
            .field("orig_rax", &self.orig_rax.cast_signed())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_those_of_the_psabi() {
        let mut registers = Registers::default();
        for n in 0..7 {
            registers.set_argument(n, n as u64 + 1);
        }
        let r = registers;
        assert_eq!([r.rdi, r.rsi, r.rdx, r.rcx, r.r8, r.r9], [1, 2, 3, 4, 5, 6]);
        assert_eq!(registers.argument(3), 4);
        assert_eq!(registers.argument(6), 0);
    }

    #[test]
    fn returns_where_it_is_told() {
        let mut registers = Registers::default();
        registers.set_sp(Addr::new(0x1000));
        registers.return_to(Addr::new(0x40));
        assert_eq!(
            (registers.ip(), registers.sp()),
            (Addr::new(0x40), Addr::new(0x1008))
        );
    }

    #[test]
    fn no_system_call_is_minus_one() {
        let mut registers = Registers::default();
        assert_eq!(registers.system_call(), Some(0));
        registers.set_system_call(None);
        assert_eq!(registers.orig_rax.cast_signed(), -1);
        assert_eq!(registers.system_call(), None);
    }
}
