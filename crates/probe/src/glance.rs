//! Single facts of a process, for [`leaktap_image::Image::follow`].

use leaktap_image::{Glance, Kind, Mapping, Perms};
use leaktap_memory::{Addr, ReadMemory, Unreadable};
use leaktap_tracee::{Area, Memory};

/// What the kernel tells of the process of a memory.
pub(crate) struct Kernel<'m>(pub(crate) &'m Memory);

impl ReadMemory for Kernel<'_> {
    fn read(&self, at: Addr, buf: &mut [u8]) -> Result<(), Unreadable> {
        self.0.read(at, buf)
    }
}

impl Glance for Kernel<'_> {
    fn mapping_from(&self, at: Addr) -> Option<Option<Mapping>> {
        match self.0.area_from(at).ok()? {
            // /proc/PID/maps escapes it, and names are compared.
            Some(area) if area.name.contains(&b'\n') => None,
            area => Some(area.map(mapping)),
        }
    }

    fn read_each(&self, places: &[Addr], len: usize) -> Vec<u8> {
        self.0.read_each(places, len)
    }
}

fn mapping(area: Area) -> Mapping {
    Mapping {
        start: Addr::new(area.start),
        end: Addr::new(area.end),
        perms: Perms {
            read: area.read,
            write: area.write,
            exec: area.exec,
            shared: area.shared,
        },
        offset: area.offset,
        dev: area.dev,
        inode: area.inode,
        kind: Kind::of(&area.name),
    }
}

#[cfg(test)]
mod tests {
    use leaktap_image::mappings;
    use leaktap_tracee::Tid;

    use super::*;

    /// Before Linux 6.11 it tells nothing.
    #[test]
    fn the_kernel_tells_of_one_mapping_as_of_all() {
        let own = std::process::id().cast_signed();
        let memory = Memory::open(Tid::new(own)).unwrap();
        let here = Addr::new(mapping as *const () as u64);
        let all = mappings(own).unwrap();
        let code = all.iter().find(|map| map.contains(here)).unwrap();
        if let Some(found) = Kernel(&memory).mapping_from(here) {
            assert_eq!(found.as_ref(), Some(code));
            let after = all.iter().find(|map| map.start >= code.end).unwrap();
            let found = Kernel(&memory).mapping_from(code.end).unwrap();
            assert_eq!(found.unwrap().start, after.start);
            assert_eq!(Kernel(&memory).mapping_from(Addr::new(!0)), Some(None));
        }
    }

    #[test]
    fn pieces_are_read_up_to_the_first_that_is_not_there() {
        let own = std::process::id().cast_signed();
        let memory = Memory::open(Tid::new(own)).unwrap();
        let words = [[1_u8; 8], [2; 8], [3; 8]];
        let at = |word: &[u8; 8]| Addr::new(word.as_ptr() as u64);
        let places = [at(&words[2]), at(&words[0]), Addr::new(8), at(&words[1])];
        let read = Kernel(&memory).read_each(&places, 8);
        assert_eq!(read, [[3; 8], [1; 8]].concat());
    }
}
