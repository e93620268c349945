//! A few thousand inputs for each subject. More of them: docs/fuzzing.md.
#![allow(
    clippy::unwrap_used,
    reason = "a failure to prepare is a failure of the test"
)]

use leaktap_fuzz::{CAPTURE, CFI, ELF, LINK_MAP, MAPS, SHARED, Subject, corpus, drive};

/// At least half of the inputs get through: otherwise it is the first look at them that is tested.
fn survives(subject: &Subject, executions: u64) {
    let sum = drive(subject, executions, 14).unwrap();
    assert!(sum.executions >= executions);
    assert!(
        2 * sum.reached >= sum.executions,
        "{}: {sum:?}",
        subject.name
    );
}

#[test]
fn elf_files() {
    survives(&ELF, 4_000);
}

#[test]
fn call_frame_information() {
    survives(&CFI, 20_000);
}

#[test]
fn link_maps() {
    survives(&LINK_MAP, 10_000);
}

#[test]
fn proc_maps() {
    survives(&MAPS, 10_000);
}

#[test]
fn captures() {
    survives(&CAPTURE, 4_000);
}

#[test]
fn shared_memory() {
    survives(&SHARED, 1_000);
}

/// A corpus is small, and all of it is understood as it is, but for what is empty on purpose.
#[test]
fn stored_inputs_get_through() {
    for subject in leaktap_fuzz::SUBJECTS {
        let stored = corpus(subject.name).unwrap();
        assert!(stored.iter().map(Vec::len).sum::<usize>() < 100 << 10);
        assert!(
            stored.iter().all(|input| (subject.parse)(input)),
            "{}",
            subject.name
        );
    }
}
