use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_tracee::Memory;

/// A process's memory as it is without what we have written over its code.
pub(crate) struct Unpatched<'a> {
    memory: &'a Memory,
    originals: Vec<(Addr, Vec<u8>)>,
}

impl<'a> Unpatched<'a> {
    /// `memory`, but for the original bytes at some addresses.
    pub(crate) fn new(memory: &'a Memory, originals: Vec<(Addr, Vec<u8>)>) -> Unpatched<'a> {
        Unpatched { memory, originals }
    }
}

impl ReadMemory for Unpatched<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        self.memory.read(at, buf)?;
        for (start, bytes) in &self.originals {
            for (offset, byte) in (0..).zip(bytes) {
                let place = start.wrapping_offset(offset).offset_from(at);
                let place = place.and_then(|place| usize::try_from(place).ok());
                if let Some(place) = place.and_then(|place| buf.get_mut(place)) {
                    *place = *byte;
                }
            }
        }
        Ok(())
    }
}
