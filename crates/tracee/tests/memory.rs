//! Reading and writing another process' memory.
#![allow(clippy::unwrap_used, reason = "a test fails by a panic")]

mod common;

use common::Target;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, Options, Tracer, WriteError};

/// Addresses that the fixture prints.
fn addresses(target: &mut Target) -> [Addr; 4] {
    let line = target.line();
    let mut words = line
        .split(' ')
        .map(|word| Addr::new(u64::from_str_radix(word, 16).unwrap()));
    std::array::from_fn(|_| words.next().unwrap())
}

#[test]
fn reads_up_to_the_end_of_what_is_mapped() {
    let mut target = Target::start("pages", &[]);
    let [pages, hidden, _, _] = addresses(&mut target);
    let memory = Memory::open(target.tid).unwrap();
    let mut buf = [0; 12288];
    // Three pages: readable and filled with 1, unreadable and filled with 2, not mapped.
    assert_eq!(
        memory.read_partial(pages.wrapping_offset(4000), &mut buf[..96]),
        96
    );
    assert_eq!(buf[..96], [1; 96]);
    assert_eq!(
        memory.read_partial(pages.wrapping_offset(1), &mut buf),
        4095
    );
    assert_eq!(memory.read_partial(hidden, &mut buf), 4096);
    assert_eq!(buf[..4096], [2; 4096]);
    assert_eq!(
        memory.read_partial(hidden.wrapping_offset(4096), &mut buf),
        0
    );
    let across = memory.read_u64(pages.wrapping_offset(4092));
    assert_eq!(across, Ok(0x0202_0202_0101_0101));
    assert!(memory.read(pages, &mut buf).is_err());
    assert!(memory.read(Addr::new(u64::MAX - 3), &mut buf[..8]).is_err());
    assert!(memory.read(Addr::new(0), &mut buf[..8]).is_err());
}

#[test]
fn writes_code_that_the_program_then_runs() {
    let mut target = Target::start("pages", &[]);
    let [_, hidden, constant, function] = addresses(&mut target);
    let mut tracer = Tracer::new();
    let attached = tracer.attach(target.tid, Options::follow()).unwrap();
    let memory = Memory::open(target.tid).unwrap();
    // mov eax, 77; ret
    memory.write(function, &[0xb8, 77, 0, 0, 0, 0xc3]).unwrap();
    memory.write(constant.wrapping_offset(3), &[9; 10]).unwrap();
    let nowhere = hidden.wrapping_offset(4090);
    assert!(matches!(
        memory.write(nowhere, &[0; 8]),
        Err(WriteError::Refused { .. })
    ));
    attached
        .stopped
        .into_iter()
        .for_each(|stopped| stopped.detach().unwrap());
    target.end_of_input();
    assert_eq!(target.rest(), "77 0 9 9 0\n");
}
