use leaktap_arch::BREAKPOINT;
use leaktap_memory::{Addr, PAGE};

/// A write to the code of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Where.
    pub at: Addr,
    /// What.
    pub bytes: Vec<u8>,
}

/// Whether `len` bytes at `at` are in one page: written all or not at all.
pub(crate) fn is_one_write(at: Addr, len: usize) -> bool {
    at.get() % PAGE + len as u64 <= PAGE
}

/// The writes, in order, that put `new` at `at`, where no thread runs meanwhile.
///
/// The tracer may be killed between any two, which lets the threads run. Bytes of one page are
/// written by one system call, which is all or nothing. Over a page boundary the order is that
/// of Linux's kprobes: a breakpoint for the first byte, the others, then the first, so that no
/// mixture of old and new bytes is ever run.
pub fn patch(at: Addr, new: &[u8]) -> Vec<Write> {
    let Some((first, rest)) = new.split_first() else {
        return Vec::new();
    };
    if is_one_write(at, new.len()) {
        return vec![Write {
            at,
            bytes: new.to_vec(),
        }];
    }
    vec![
        Write {
            at,
            bytes: vec![BREAKPOINT],
        },
        Write {
            at: at.wrapping_offset(1),
            bytes: rest.to_vec(),
        },
        Write {
            at,
            bytes: vec![*first],
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_write_within_a_page_three_over_its_end() {
        let at = Addr::new(0x1ffb);
        assert_eq!(
            patch(at, &[1, 2, 3, 4, 5]),
            [Write {
                at,
                bytes: vec![1, 2, 3, 4, 5]
            }]
        );
        let at = Addr::new(0x1ffc);
        let next = at.wrapping_offset(1);
        assert_eq!(
            patch(at, &[1, 2, 3, 4, 5]),
            [
                Write {
                    at,
                    bytes: vec![BREAKPOINT]
                },
                Write {
                    at: next,
                    bytes: vec![2, 3, 4, 5]
                },
                Write { at, bytes: vec![1] },
            ]
        );
        assert_eq!(patch(at, &[]), []);
    }
}
