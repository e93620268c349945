//! Descriptors of threads, as glibc has them at the upper end of a thread's stack.

use std::ops::Range;

use leaktap_memory::PAGE;

const WORD: u64 = 8;

/// Where a thread's number, an `int`, is in its descriptor, `struct pthread`. Once it has ended it
/// is 0 (set_tid_address(2)), and -1 once somebody has waited for it. Not part of any ABI: to be
/// checked by a thread that lives.
pub const NUMBER_AT: u64 = 720;

/// Where [`Guards`] are in a descriptor: `stack_guard`, which compilers read there.
pub const GUARDS_AT: u64 = 40;

/// What all threads of a process have in common and nobody can guess: what their stacks and the
/// pointers that they jump by are protected with.
pub type Guards = [u64; 2];

/// The first descriptor among `words`, at `at`: it begins with its own address, as its third word
/// is (ELF Handling For Thread-Local Storage, 3.4.6), and has the guards.
pub fn descriptor(words: &[u64], at: u64, guards: Guards) -> Option<u64> {
    let guards_in = Range {
        start: (GUARDS_AT / WORD) as usize,
        end: (GUARDS_AT / WORD) as usize + guards.len(),
    };
    let all = words.windows(guards_in.end).enumerate();
    let mut found = all.filter_map(|(index, words)| {
        let of = at + index as u64 * WORD;
        let leads_to_itself = words.first() == Some(&of) && words.get(2) == Some(&of);
        let has_guards = || words.get(guards_in.clone()) == Some(&guards);
        (leads_to_itself && has_guards()).then_some(of)
    });
    found.next()
}

/// Bytes of a descriptor that are looked at.
pub const LEN: u64 = 2304;

/// Bytes that a stack may have above its thread's descriptor.
const MOST_ABOVE: u64 = 64 << 10;

/// Where the stack begins, guard included, of the thread whose descriptor begins with `words`: it
/// has first byte and length, somewhere (`stackblock`).
pub fn stack(words: &[u64], descriptor: u64) -> Option<u64> {
    let pairs = words.iter().zip(words.iter().skip(1));
    let mut blocks = pairs.filter_map(|(&start, &len)| {
        let above = start.checked_add(len)?.checked_sub(descriptor)?;
        let is_block = start < descriptor && start.is_multiple_of(PAGE) && len.is_multiple_of(PAGE);
        (is_block && (1..=MOST_ABOVE).contains(&above)).then_some(start)
    });
    blocks.next()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_descriptor_tells_where_its_stack_is() {
        let descriptor = 0x7f00_0080_06c0;
        let mut words = vec![1; 200];
        assert_eq!(stack(&words, descriptor), None);
        words[100] = 0x7f00_0000_0000;
        words[101] = 0x80_1000;
        assert_eq!(stack(&words, descriptor), Some(0x7f00_0000_0000));
        words[101] = 0x80_0000;
        assert_eq!(stack(&words, descriptor), None);
        words[101] = 0x1_0080_1000;
        assert_eq!(stack(&words, descriptor), None);
    }

    #[test]
    fn a_descriptor_leads_to_itself_and_has_the_guards() {
        let (at, guards) = (0x7f00_0000_0000, [11, 12]);
        let (list, of) = (at + 4 * WORD, at + 20 * WORD);
        let mut words = vec![1; 40];
        (words[4], words[6]) = (list, list);
        (words[20], words[22]) = (of, of);
        assert_eq!(descriptor(&words, at, guards), None);
        words[25..27].copy_from_slice(&guards);
        assert_eq!(descriptor(&words, at, guards), Some(of));
        assert_eq!(descriptor(&words, at, [11, 13]), None);
        assert_eq!(descriptor(&words[..26], at, guards), None);
    }
}
