//! What the targets have in common: a subject's own mutations beside libFuzzer's, and how many
//! inputs got through.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

use leaktap_fuzz::{Random, Subject};

/// Executions between two lines that say how many inputs got through.
const LINE: u64 = 1 << 17;

static EXECUTIONS: AtomicU64 = AtomicU64::new(0);
static REACHED: AtomicU64 = AtomicU64::new(0);

/// Makes a libFuzzer target of a subject.
#[macro_export]
macro_rules! target {
    ($subject:expr) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::execute(&$subject, input));
        libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
            $crate::mutate(&$subject, data, size, most, seed)
        });
    };
}

/// Parses an input, and counts.
pub fn execute(subject: &Subject, input: &[u8]) {
    let reached = u64::from((subject.parse)(input));
    let reached = REACHED.fetch_add(reached, Relaxed) + reached;
    let executions = EXECUTIONS.fetch_add(1, Relaxed) + 1;
    if executions % LINE == 0 {
        let share = 100.0 * reached as f64 / executions as f64;
        eprintln!("{}: {executions} executions, {share:.1} % reach the parser", subject.name);
    }
}

/// Changes an input of `size` bytes in `data`, which has room for `most`. Returns its new size.
pub fn mutate(subject: &Subject, data: &mut [u8], size: usize, most: usize, seed: u32) -> usize {
    if seed % 4 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, most);
    }
    let mut input = data[..size].to_vec();
    (subject.mutate)(&mut input, &mut Random::new(seed.into()));
    let size = input.len().min(most).min(data.len());
    data[..size].copy_from_slice(&input[..size]);
    size
}
