//! A simulated program: calls, alloca, realigned stacks, signals, and the rows of its code.

use leaktap_memory::Addr;
use leaktap_testing::Random;
use leaktap_unwind::{Cfa, Row, Rule, SavedBp, Start, Step};

use super::{Words, call, rows};

/// Where the code is.
pub(crate) const BASE: u64 = 0x40_0000;
/// Where the stack is.
pub(crate) const STACK: u64 = 0x7f00_0000_0000;
const STACK_WORDS: u64 = 4096;

/// Functions of the simulated program, 0x100 bytes of code each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Function {
    /// A fixed frame; rbp stays as it was, or is saved and then used for data.
    Fixed { words: u64, saves_bp: bool },
    /// A frame pointer, and a frame whose size differs from call to call (alloca).
    Alloca,
    /// Realigns its stack.
    Realigned,
    /// No call frame information, but a frame pointer.
    NoCfi,
    /// Returns from a signal handler to a place in the middle of another function.
    Restorer,
    /// The outermost.
    Root,
}

const FUNCTIONS: &[Function] = &[
    Function::Root,
    Function::Fixed {
        words: 0,
        saves_bp: false,
    },
    Function::Fixed {
        words: 3,
        saves_bp: false,
    },
    Function::Fixed {
        words: 5,
        saves_bp: true,
    },
    Function::Alloca,
    Function::Realigned,
    Function::NoCfi,
    Function::Restorer,
];

impl Function {
    fn rule(self) -> Option<Rule> {
        match self {
            Function::Fixed { words, saves_bp } => {
                let bp = if saves_bp {
                    SavedBp::AtCfa(-16)
                } else {
                    SavedBp::Unchanged
                };
                Some(call(
                    Cfa::Sp((words as i32 + 1 + i32::from(saves_bp)) * 8),
                    bp,
                ))
            }
            Function::Alloca => Some(call(Cfa::Bp(16), SavedBp::AtCfa(-16))),
            Function::Realigned => Some(call(Cfa::AtBp { at: -8, plus: 0 }, SavedBp::AtBp(0))),
            Function::NoCfi => None,
            Function::Restorer => Some(Rule::pack(Step::SignalFrame {
                ip: 16,
                sp: 8,
                bp: 0,
            })),
            Function::Root => Some(Rule::pack(Step::End)),
        }
    }
}

pub(crate) fn program() -> Vec<Row> {
    let row = |(index, function): (usize, &Function)| (index as u32 * 0x100, function.rule());
    rows(&FUNCTIONS.iter().enumerate().map(row).collect::<Vec<_>>())
}

/// A thread of the simulated program: its registers and its stack, which keeps old words.
pub(crate) struct Thread {
    pub(crate) stack: Words,
    ip: u64,
    pub(crate) sp: u64,
    pub(crate) bp: u64,
    /// What to restore when the innermost call returns: function, its ip, sp and rbp.
    pub(crate) calls: Vec<(usize, u64, u64, u64)>,
    function: usize,
}

impl Thread {
    pub(crate) fn new() -> Thread {
        let stack = Words {
            base: STACK,
            words: vec![0; STACK_WORDS as usize],
        };
        let sp = STACK + STACK_WORDS * 8 - 64;
        Thread {
            stack,
            ip: BASE + 0x10,
            sp,
            bp: 0,
            calls: Vec::new(),
            function: 0,
        }
    }

    fn push(&mut self, value: u64) {
        self.sp -= 8;
        self.stack.set(self.sp, value);
    }

    /// Calls `function` from one of four places of the current one, and runs its prologue.
    pub(crate) fn call(&mut self, function: usize, random: &mut Random) {
        let site = BASE + self.function as u64 * 0x100 + 0x20 + random.below(4) * 8;
        self.calls.push((self.function, site, self.sp, self.bp));
        if FUNCTIONS[function] == Function::Restorer {
            self.signal(site, random);
        } else {
            self.push(site);
        }
        let cfa = self.sp + 8;
        match FUNCTIONS[function] {
            Function::Fixed { words, saves_bp } => {
                if saves_bp {
                    self.push(self.bp);
                    self.bp = random.number();
                }
                self.locals(words, random);
            }
            Function::Alloca => self.frame_pointer(random.below(6), random),
            Function::NoCfi => self.frame_pointer(2, random),
            Function::Realigned => {
                self.sp &= !31;
                self.push(site);
                self.push(self.bp);
                self.bp = self.sp;
                self.push(cfa);
                self.locals(random.below(3), random);
            }
            Function::Restorer | Function::Root => {}
        }
        self.function = function;
        self.ip = BASE + function as u64 * 0x100 + 0x40 + random.below(2);
    }

    /// The kernel's frame for a handler: rbp, rsp and rip of what was interrupted.
    fn signal(&mut self, ip: u64, random: &mut Random) {
        let interrupted = self.sp;
        self.locals(random.below(3), random);
        self.push(ip);
        self.push(interrupted);
        self.push(self.bp);
    }

    fn frame_pointer(&mut self, locals: u64, random: &mut Random) {
        self.push(self.bp);
        self.bp = self.sp;
        self.locals(locals, random);
    }

    fn locals(&mut self, words: u64, random: &mut Random) {
        for _ in 0..words {
            let value = if random.below(2) == 0 {
                random.number()
            } else {
                self.sp
            };
            self.push(value);
        }
    }

    pub(crate) fn ret(&mut self) {
        if let Some((function, ip, sp, bp)) = self.calls.pop() {
            (self.function, self.ip, self.sp, self.bp) = (function, ip, sp, bp);
        }
    }

    pub(crate) fn start(&self) -> Start {
        Start {
            ip: Addr::new(self.ip),
            sp: Addr::new(self.sp),
            bp: self.bp,
        }
    }
}
