use nix::libc;

use crate::Signal;

/// What waitpid(2) says of a thread, taken apart. Of our own, because a stop by a real-time signal
/// does not fit the signal type of nix, which answers `EINVAL` and so loses the stop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Status {
    Exited {
        code: i32,
    },
    Killed {
        signal: Signal,
        core: bool,
    },
    /// `event` is a `PTRACE_EVENT_*`, zero for a signal-delivery-stop.
    Stopped {
        signal: Signal,
        event: i32,
    },
}

impl Status {
    /// Takes apart a status as in ptrace(2): `signal | event << 8` in the second byte and above.
    pub(crate) fn decode(status: i32) -> Status {
        if libc::WIFEXITED(status) {
            Status::Exited {
                code: libc::WEXITSTATUS(status),
            }
        } else if libc::WIFSTOPPED(status) {
            Status::Stopped {
                signal: Signal::new(libc::WSTOPSIG(status)),
                event: status >> 16,
            }
        } else {
            let core = libc::WCOREDUMP(status);
            Status::Killed {
                signal: Signal::new(libc::WTERMSIG(status)),
                core,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_every_kind_of_status() {
        let stopped = |signal, event| Status::Stopped {
            signal: Signal::new(signal),
            event,
        };
        let killed = |signal, core| Status::Killed {
            signal: Signal::new(signal),
            core,
        };
        let expected = [
            (0x0000, Status::Exited { code: 0 }),
            (0x2a00, Status::Exited { code: 42 }),
            (0x0009, killed(9, false)),
            (0x008b, killed(11, true)),
            (0x0025, killed(37, false)),
            (0x057f, stopped(5, 0)),
            (0x207f, stopped(32, 0)),
            (0x407f, stopped(64, 0)),
            (0x0080_057f, stopped(5, 128)),
            (0x0080_137f, stopped(19, 128)),
            (0x0003_057f, stopped(5, libc::PTRACE_EVENT_CLONE)),
        ];
        for (status, decoded) in expected {
            assert_eq!(Status::decode(status), decoded, "{status:#x}");
        }
    }
}
