use crate::{Addr, ReadMemory, Unreadable};

/// Bytes of a stack copied in one system call, laid over the live memory they came from.
///
/// A read that the copy covers costs no system call; any other goes to the memory below.
#[derive(Clone, Copy, Debug)]
pub struct StackOverlay<'a, M> {
    base: Addr,
    bytes: &'a [u8],
    below: M,
}

impl<'a, M> StackOverlay<'a, M> {
    /// Lays `bytes`, copied from `base`, over `below`.
    pub fn new(base: Addr, bytes: &'a [u8], below: M) -> StackOverlay<'a, M> {
        StackOverlay { base, bytes, below }
    }

    fn copied(&self, at: Addr, len: usize) -> Option<&'a [u8]> {
        let from = usize::try_from(at.offset_from(self.base)?).ok()?;
        self.bytes.get(from..from.checked_add(len)?)
    }
}

impl<M: ReadMemory> ReadMemory for StackOverlay<'_, M> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        match self.copied(at, buf.len()) {
            Some(bytes) => {
                buf.copy_from_slice(bytes);
                Ok(())
            }
            None => self.below.read(at, buf),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nothing;

    impl ReadMemory for Nothing {
        fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
            Err(Unreadable { at, len: buf.len() })
        }
    }

    #[test]
    fn reads_the_copy_inside_and_the_memory_outside() {
        let bytes: std::vec::Vec<u8> = (0..16).collect();
        let stack = StackOverlay::new(Addr::new(0x1000), &bytes, Nothing);
        assert_eq!(stack.read_u64(Addr::new(0x1008)), Ok(0x0f0e_0d0c_0b0a_0908));
        for outside in [0xfff, 0x1009, 0x1010, u64::MAX] {
            let at = Addr::new(outside);
            assert_eq!(stack.read_u64(at), Err(Unreadable { at, len: 8 }));
        }
    }
}
