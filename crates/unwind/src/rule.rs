use leaktap_arch::signal_frame;

/// How to get from a frame to its caller, as an enum to reason with; [`Rule`] is its packed form.
///
/// `ip`, `rsp`, `rbp` are the frame's registers and `[a]` is the word at `a`; offsets are in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// `(ip, rsp, rbp) = ([cfa - 8], cfa, bp)`.
    Call {
        /// The canonical frame address: rsp after the return (DWARF 5, section 6.4).
        cfa: Cfa,
        /// Where the caller's rbp is.
        bp: SavedBp,
    },
    /// `(ip, rsp, rbp) = ([rsp + ip], [rsp + sp], [rsp + bp])`: the code that a signal handler
    /// returns to.
    SignalFrame {
        /// Offset of the interrupted rip.
        ip: i16,
        /// Offset of the interrupted rsp.
        sp: i32,
        /// Offset of the interrupted rbp.
        bp: i32,
    },
    /// The outermost frame: the return address is undefined.
    End,
    /// Something that this crate cannot follow.
    Unsupported,
}

/// How to compute the canonical frame address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cfa {
    /// `rsp + 0`.
    Sp(i32),
    /// `rbp + 0`.
    Bp(i32),
    /// `[rbp + at] + plus`: the body of a function that realigned its stack.
    AtBp {
        /// Offset of the word that holds the address.
        at: i32,
        /// Added to that word.
        plus: i16,
    },
    /// `[rsp + at] + plus`: assembly that saved the old rsp in its frame.
    AtSp {
        /// Offset of the word that holds the address.
        at: i32,
        /// Added to that word.
        plus: i16,
    },
    /// `rsp + offset + (8 if ip % 16 >= from)`: a slot of the procedure linkage table.
    Plt {
        /// Offset at the slot's start.
        offset: i32,
        /// First byte of the slot after its push.
        from: i16,
    },
}

/// Where a frame keeps its caller's rbp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SavedBp {
    /// Still in rbp.
    Unchanged,
    /// `[cfa + 0]`.
    AtCfa(i32),
    /// `[rbp + 0]`.
    AtBp(i32),
    /// `[rsp + 0]`.
    AtSp(i32),
    /// Nowhere that the walker could find it.
    Lost,
}

impl Step {
    /// The frame that the kernel builds for a handler, for signal-return code without call frame
    /// information: rsp is at a `struct ucontext`.
    pub const KERNEL_SIGNAL_FRAME: Step = Step::SignalFrame {
        ip: signal_frame::IP_AT,
        sp: signal_frame::SP_AT,
        bp: signal_frame::BP_AT,
    };
}

/// A [`Step`] packed into 12 bytes of plain integers.
///
/// Every bit pattern is valid (an unknown one is [`Step::Unsupported`]), so rules may lie in memory
/// that others write. All zeroes mean that there is no call frame information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(C)]
pub struct Rule {
    /// Kind, kind of the saved rbp, and a 16-bit offset, from the lowest byte up. One word, because
    /// rules are copied about, and a word written in parts cannot be read back at once without a
    /// stall.
    head: u32,
    offset: i32,
    bp: i32,
}

const _: () = assert!(size_of::<Rule>() == 12);

/// Values of a rule's first byte.
mod kind {
    /// Added to one of the others: the rule stems from the code itself.
    pub(super) const DERIVED: u8 = 0x80;
    pub(super) const NO_CFI: u8 = 0;
    pub(super) const SP: u8 = 1;
    pub(super) const BP: u8 = 2;
    pub(super) const AT_BP: u8 = 3;
    pub(super) const AT_SP: u8 = 4;
    pub(super) const PLT: u8 = 5;
    pub(super) const SIGNAL_FRAME: u8 = 6;
    pub(super) const END: u8 = 7;
    pub(super) const UNSUPPORTED: u8 = 8;
}

/// Values of a rule's second byte; others mean that rbp is lost.
mod bp_kind {
    pub(super) const UNCHANGED: u8 = 0;
    pub(super) const AT_CFA: u8 = 1;
    pub(super) const AT_BP: u8 = 2;
    pub(super) const AT_SP: u8 = 3;
    pub(super) const LOST: u8 = 4;
}

impl Rule {
    /// No call frame information.
    pub(crate) const NO_CFI: Rule = Rule::of_kind(kind::NO_CFI);

    const fn of_kind(kind: u8) -> Rule {
        Rule::new((kind, 0, 0), 0, 0)
    }

    const fn new((kind, bp_kind, small): (u8, u8, i16), offset: i32, bp: i32) -> Rule {
        let [low, high] = small.to_le_bytes();
        let head = u32::from_le_bytes([kind, bp_kind, low, high]);
        Rule { head, offset, bp }
    }

    const fn head(self) -> (u8, u8, i16) {
        let [kind, bp_kind, low, high] = self.head.to_le_bytes();
        let kind = kind & !kind::DERIVED;
        (kind, bp_kind, i16::from_le_bytes([low, high]))
    }

    /// The rule, marked as stemming from the code itself, not from call frame information.
    #[cfg(feature = "build")]
    pub(crate) const fn derived(self) -> Rule {
        Rule {
            head: self.head | kind::DERIVED as u32,
            ..self
        }
    }

    /// True if the rule stems from the code itself: it may mislead where assembly does what no
    /// compiler would.
    #[inline]
    pub const fn is_derived(self) -> bool {
        self.head & kind::DERIVED as u32 != 0
    }

    /// Packs `step`.
    pub const fn pack(step: Step) -> Rule {
        match step {
            Step::Call { cfa, bp } => Rule::pack_call(cfa, bp),
            Step::SignalFrame { ip, sp, bp } => Rule::new((kind::SIGNAL_FRAME, 0, ip), sp, bp),
            Step::End => Rule::of_kind(kind::END),
            Step::Unsupported => Rule::of_kind(kind::UNSUPPORTED),
        }
    }

    const fn pack_call(cfa: Cfa, bp: SavedBp) -> Rule {
        let (kind, offset, small) = match cfa {
            Cfa::Sp(offset) => (kind::SP, offset, 0),
            Cfa::Bp(offset) => (kind::BP, offset, 0),
            Cfa::AtBp { at, plus } => (kind::AT_BP, at, plus),
            Cfa::AtSp { at, plus } => (kind::AT_SP, at, plus),
            Cfa::Plt { offset, from } => (kind::PLT, offset, from),
        };
        let (bp_kind, bp) = match bp {
            SavedBp::Unchanged => (bp_kind::UNCHANGED, 0),
            SavedBp::AtCfa(offset) => (bp_kind::AT_CFA, offset),
            SavedBp::AtBp(offset) => (bp_kind::AT_BP, offset),
            SavedBp::AtSp(offset) => (bp_kind::AT_SP, offset),
            SavedBp::Lost => (bp_kind::LOST, 0),
        };
        Rule::new((kind, bp_kind, small), offset, bp)
    }

    /// Unpacks the rule.
    #[inline]
    pub const fn unpack(self) -> Step {
        let (kind, bp_kind, small) = self.head();
        let cfa = match kind {
            kind::SP => Cfa::Sp(self.offset),
            kind::BP => Cfa::Bp(self.offset),
            kind::AT_BP => Cfa::AtBp {
                at: self.offset,
                plus: small,
            },
            kind::AT_SP => Cfa::AtSp {
                at: self.offset,
                plus: small,
            },
            kind::PLT => Cfa::Plt {
                offset: self.offset,
                from: small,
            },
            kind::SIGNAL_FRAME => {
                return Step::SignalFrame {
                    ip: small,
                    sp: self.offset,
                    bp: self.bp,
                };
            }
            kind::END => return Step::End,
            _ => return Step::Unsupported,
        };
        let bp = self.saved_bp(bp_kind);
        Step::Call { cfa, bp }
    }

    #[inline]
    const fn saved_bp(self, bp_kind: u8) -> SavedBp {
        match bp_kind {
            bp_kind::UNCHANGED => SavedBp::Unchanged,
            bp_kind::AT_CFA => SavedBp::AtCfa(self.bp),
            bp_kind::AT_BP => SavedBp::AtBp(self.bp),
            bp_kind::AT_SP => SavedBp::AtSp(self.bp),
            _ => SavedBp::Lost,
        }
    }

    #[inline]
    pub(crate) const fn is_no_cfi(self) -> bool {
        self.head().0 == kind::NO_CFI
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_survives_packing() {
        let cfas = [
            Cfa::Sp(8),
            Cfa::Bp(i32::MAX),
            Cfa::AtBp { at: -8, plus: 0 },
            Cfa::AtSp {
                at: 32,
                plus: i16::MIN,
            },
            Cfa::Plt {
                offset: 8,
                from: 11,
            },
        ];
        let bps = [
            SavedBp::Unchanged,
            SavedBp::AtCfa(-16),
            SavedBp::AtBp(0),
            SavedBp::AtSp(i32::MIN),
            SavedBp::Lost,
        ];
        for cfa in cfas {
            for bp in bps {
                let step = Step::Call { cfa, bp };
                assert_eq!(Rule::pack(step).unpack(), step);
            }
        }
        for step in [Step::KERNEL_SIGNAL_FRAME, Step::End, Step::Unsupported] {
            assert_eq!(Rule::pack(step).unpack(), step);
        }
    }
}
