use core::fmt;

/// Bytes of the smallest page of x86-64: mmap(2) and its kin work in whole ones.
pub const PAGE: u64 = 4096;

/// An address in a running process ("avma", actual virtual memory address), never dereferenced.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Addr(u64);

/// An address as an ELF file states it ("svma", stated virtual memory address): `p_vaddr`,
/// `st_value`, what DWARF calls an address. A module's bias turns it into an [`Addr`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Svma(pub u64);

impl Addr {
    /// The address `value`.
    pub const fn new(value: u64) -> Addr {
        Addr(value)
    }

    /// The address as a number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// True of the null pointer.
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }

    /// `self + bytes`, or nothing past the end of the address space.
    pub const fn checked_add(self, bytes: u64) -> Option<Addr> {
        match self.0.checked_add(bytes) {
            Some(value) => Some(Addr(value)),
            None => None,
        }
    }

    /// `self - bytes`, or nothing below address zero.
    pub const fn checked_sub(self, bytes: u64) -> Option<Addr> {
        match self.0.checked_sub(bytes) {
            Some(value) => Some(Addr(value)),
            None => None,
        }
    }

    /// `self + bytes` modulo 2^64, as the processor computes it.
    pub const fn wrapping_offset(self, bytes: i64) -> Addr {
        Addr(self.0.wrapping_add_signed(bytes))
    }

    /// Bytes from `start` up to `self`, or nothing where `self` lies below `start`.
    pub const fn offset_from(self, start: Addr) -> Option<u64> {
        self.0.checked_sub(start.0)
    }
}

impl Svma {
    /// Where this address is in a process that has loaded the file with `bias` (modulo 2^64: the
    /// bias of a file linked above its load address is negative).
    pub const fn at_bias(self, bias: u64) -> Addr {
        Addr(self.0.wrapping_add(bias))
    }

    /// The address in the file of `addr` of a process that has loaded it with `bias`.
    pub const fn from_addr(addr: Addr, bias: u64) -> Svma {
        Svma(addr.0.wrapping_sub(bias))
    }
}

impl fmt::Debug for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for Svma {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "svma {:#x}", self.0)
    }
}
