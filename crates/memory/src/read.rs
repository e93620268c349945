use core::fmt;

use crate::Addr;

/// Memory that can be read by address: a live process, a copied stack, a core, an array in a test.
pub trait ReadMemory {
    /// Fills all of `buf` from `at`.
    ///
    /// # Errors
    /// [`Unreadable`] if any byte of the range cannot be read; `buf` is unspecified then.
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable>;

    /// The little-endian word at `at`.
    ///
    /// # Errors
    /// [`Unreadable`] as [`ReadMemory::read`].
    fn read_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        let mut word = [0; 8];
        self.read(at, &mut word)?;
        Ok(u64::from_le_bytes(word))
    }

    /// The word at `at`, where nothing proves that there is one: a frame pointer has led there,
    /// say. For memory that is read without a check elsewhere.
    ///
    /// # Errors
    /// [`Unreadable`] as [`ReadMemory::read`].
    fn guess_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        self.read_u64(at)
    }
}

impl<M: ReadMemory + ?Sized> ReadMemory for &M {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        (**self).read(at, buf)
    }

    fn read_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        (**self).read_u64(at)
    }

    fn guess_u64(&self, at: Addr) -> Result<u64, Unreadable> {
        (**self).guess_u64(at)
    }
}

/// A range of the target that is not mapped, or no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// First byte of the range asked for.
    pub at: Addr,
    /// Its length in bytes.
    pub len: usize,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {} bytes at {}", self.len, self.at)
    }
}

impl core::error::Error for Unreadable {}
