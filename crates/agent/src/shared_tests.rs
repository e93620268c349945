use super::*;
use crate::layout::Control;

#[test]
fn parts_do_not_overlap_and_are_aligned() {
    const {
        assert!(size_of::<Control>() <= 4096 && KEYS_AT.is_multiple_of(64));
        assert!(THREADS_AT.is_multiple_of(align_of::<Thread>() as u64));
        assert!(LEDGER_AT.is_multiple_of(4096) && SHARED_LEN.is_multiple_of(4096));
    }
}

#[test]
fn what_is_written_is_there_and_nothing_else_is_touched() {
    let at = (offset_of!(Control, live) + offset_of!(Live, clock)) as u64;
    for shared in [Shared::anonymous(TABLES), Shared::own(TABLES), of_target()] {
        let shared = shared.expect("memory");
        shared.write(at, &7_u32.to_le_bytes());
        assert_eq!(shared.live().clock.load(Relaxed), 7);
        shared.write(shared.parts.ledger - 1, &[1, 2]);
        shared.write(u64::MAX, &[1]);
        shared.store(u64::MAX - 7, &[1, 2]);
        assert!(shared.table(REMAINS_AT, usize::MAX).is_empty());
        assert!(shared.blocks().next().is_none());
        assert!(shared.outer(KEYS_LEN).is_none());
    }
}

#[test]
fn what_has_no_agent_has_no_threads_and_no_room() {
    let own = Shared::own(1).expect("memory");
    assert!(own.keys().is_empty() && own.outer(0).is_none());
    own.store(ROOM_AT, &[1, 2]);
    assert!(own.table(ROOM_AT, 1).is_empty());
    let of_target = of_target().expect("memory");
    assert_eq!(of_target.keys().len(), KEYS_LEN);
    assert!(of_target.outer(KEYS_LEN - 1).is_some());
    assert!(!own.holds(&of_target));
}

fn of_target() -> io::Result<Shared> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    Shared::in_file(memfd_create("test", flags)?.into())
}

/// Mappings and descriptors of this process that are called `name`.
fn left_of(name: &str) -> usize {
    let maps = std::fs::read_to_string("/proc/self/maps").expect("maps");
    let files = std::fs::read_dir("/proc/self/fd").expect("descriptors");
    let target = |file: io::Result<std::fs::DirEntry>| std::fs::read_link(file.ok()?.path()).ok();
    let is_it = |path: &std::path::PathBuf| path.to_string_lossy().contains(name);
    maps.matches(name).count() + files.filter_map(target).filter(is_it).count()
}

/// One for each exec of the target was left: addresses and descriptors ran out.
#[test]
fn nothing_is_left_of_memory_that_is_dropped() {
    let name = "leaktap_dropped";
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = memfd_create(name, flags).expect("a file");
    let shared = Shared::in_file(file.into()).expect("memory");
    assert_eq!(left_of(name), 2);
    drop(shared);
    assert_eq!(left_of(name), 0);
}

/// The tracer would end by SIGBUS.
#[test]
fn nobody_shortens_what_is_shared() {
    let shared = of_target().expect("memory");
    let file = shared.map.file().expect("a file");
    assert!(file.set_len(0).is_err() && file.set_len(SHARED_LEN + 4096).is_err());
    assert_eq!(file.metadata().expect("a file").len(), SHARED_LEN);
    let not_sealable = memfd_create("test", MFdFlags::MFD_CLOEXEC).expect("a file");
    assert!(Shared::in_file(not_sealable.into()).is_err());
}
