use core::ops::ControlFlow;

use leaktap_arch::{RETURN_LEN, USER_END};
use leaktap_memory::{Addr, ReadMemory};

use crate::{Cfa, End, Found, Frame, Rules, SavedBp, Step};

/// How often one walk may go to a lower stack pointer: once for each signal handled on another
/// stack and for each switch of stacks by rbp. Bounded, so that every walk ends.
const MAX_SWITCHES: u8 = 16;

/// The largest frame, in bytes, that a frame pointer is believed to span: a whole default stack.
const MAX_FRAME: u64 = 8 << 20;

/// The lowest address that a program may map, unless its owner has set vm.mmap_min_addr lower.
const LOWEST: u64 = 1 << 16;

/// Where a walk starts: in a caller, after its callee's return.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The return address.
    pub ip: Addr,
    /// rsp after the return.
    pub sp: Addr,
    /// rbp.
    pub bp: u64,
}

impl Start {
    /// A thread that is stopped at `ip` itself, rather than calling something: the first frame is
    /// looked up at `ip`, not before it.
    pub const fn stopped_at(ip: Addr, sp: Addr, bp: u64) -> Start {
        let ip = ip.wrapping_offset(1);
        Start { ip, sp, bp }
    }
}

/// What a walk came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How many frames were written.
    pub depth: usize,
    /// Why there are no more.
    pub end: End,
}

/// A frame in passing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visited {
    /// The frame.
    pub frame: Frame,
    /// rsp in this frame after the call returns; of an interrupted frame, when the signal came.
    pub sp: Addr,
    /// True if a signal interrupted this frame, and its handler called what came before.
    pub signal: bool,
}

/// Walks the stack from `start`, writing frames, innermost first, until the end or until `frames`
/// is full.
///
/// [`End::TooDeep`] is only said if there was one more frame than room.
#[inline]
pub fn walk(
    start: Start,
    mem: &impl ReadMemory,
    rules: &mut impl Rules,
    frames: &mut [Frame],
) -> Walk {
    Walker::new(start, mem).fill(rules, frames)
}

/// Walks the stack from `start`, showing each frame, innermost first, to `visit`, which breaks with
/// [`End::TooDeep`].
#[inline]
pub fn walk_with(
    start: Start,
    mem: &impl ReadMemory,
    rules: &mut impl Rules,
    visit: impl FnMut(Visited) -> ControlFlow<()>,
) -> End {
    Walker::new(start, mem).run(rules, visit)
}

/// Where the current frame's rbp is. It is read when a rule needs it and not before: most frames
/// save an rbp that no outer frame uses, and what is not read cannot be unreadable, nor fail a
/// comparison in the memo.
#[derive(Clone, Copy)]
enum Bp {
    Start(u64),
    Known(u64),
    At(Addr),
    Lost,
}

/// The state of one walk.
pub(crate) struct Walker<'m, M> {
    mem: &'m M,
    frame: Frame,
    sp: Addr,
    bp: Bp,
    signal: bool,
    switches: u8,
    used_start_bp: bool,
    /// It has gone by a frame pointer that nothing vouches for: so has all that comes after.
    guesses: bool,
}

impl<'m, M: ReadMemory> Walker<'m, M> {
    #[inline]
    pub(crate) fn new(start: Start, mem: &'m M) -> Walker<'m, M> {
        Walker {
            mem,
            frame: Frame::returning_to(start.ip),
            sp: start.sp,
            bp: Bp::Start(start.bp),
            signal: false,
            switches: 0,
            used_start_bp: false,
            guesses: false,
        }
    }

    /// Whether the walk so far depends on the rbp that it started with.
    #[inline]
    pub(crate) fn used_start_bp(&self) -> bool {
        self.used_start_bp
    }

    /// Runs until `frames` is full.
    #[inline]
    pub(crate) fn fill(&mut self, rules: &mut impl Rules, frames: &mut [Frame]) -> Walk {
        let mut depth = 0_usize;
        let end = self.run(rules, |visited| match frames.get_mut(depth) {
            Some(frame) => {
                *frame = visited.frame;
                depth = depth.wrapping_add(1);
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break(()),
        });
        Walk { depth, end }
    }

    #[inline]
    fn run(
        &mut self,
        rules: &mut impl Rules,
        mut visit: impl FnMut(Visited) -> ControlFlow<()>,
    ) -> End {
        if self.frame.address().is_null() {
            return End::Root;
        }
        loop {
            let visited = Visited {
                frame: self.frame,
                sp: self.sp,
                signal: self.signal,
            };
            if visit(visited).is_break() {
                return End::TooDeep;
            }
            if let Err(end) = self.step(rules.rule(self.frame.lookup())) {
                return end;
            }
        }
    }

    #[inline]
    fn step(&mut self, found: Found) -> Result<(), End> {
        let Found::Rule(rule) = found else {
            return self.by_frame_pointer();
        };
        match rule.unpack() {
            Step::Call { cfa, bp } => self.by_call(cfa, bp),
            Step::SignalFrame { ip, sp, bp } => self.by_signal(ip.into(), sp.into(), bp.into()),
            Step::End => Err(End::Root),
            Step::Unsupported if rule.is_derived() => Err(End::NoRule),
            Step::Unsupported => Err(End::Unsupported),
        }
    }

    #[inline]
    fn by_call(&mut self, cfa: Cfa, bp: SavedBp) -> Result<(), End> {
        let to = self.cfa(cfa)?;
        let bp = match bp {
            SavedBp::Unchanged => self.bp,
            SavedBp::AtCfa(offset) => Bp::At(to.wrapping_offset(offset.into())),
            SavedBp::AtSp(offset) => Bp::At(self.sp.wrapping_offset(offset.into())),
            SavedBp::AtBp(offset) => Bp::At(self.bp()?.wrapping_offset(offset.into())),
            SavedBp::Lost => Bp::Lost,
        };
        // Code that switches stacks (Rust's stacker, boost.context's trampolines) says so by an
        // rbp, or a saved rsp, that leads to the other stack: it may lie lower. rsp + n may not.
        self.advance(to, !matches!(cfa, Cfa::Sp(_) | Cfa::Plt { .. }))?;
        let ip = self.read(to.wrapping_offset(-(RETURN_LEN as i64)))?;
        self.arrive(ip, bp, false)
    }

    #[inline]
    fn cfa(&mut self, cfa: Cfa) -> Result<Addr, End> {
        match cfa {
            Cfa::Sp(offset) => Ok(self.sp.wrapping_offset(offset.into())),
            Cfa::Bp(offset) => Ok(self.bp()?.wrapping_offset(offset.into())),
            Cfa::AtBp { at, plus } => {
                let at = self.bp()?.wrapping_offset(at.into());
                Ok(Addr::new(self.read(at)?).wrapping_offset(plus.into()))
            }
            Cfa::AtSp { at, plus } => {
                let at = self.sp.wrapping_offset(at.into());
                Ok(Addr::new(self.read(at)?).wrapping_offset(plus.into()))
            }
            Cfa::Plt { offset, from } => {
                let pushed = (self.frame.lookup().get() & 15) as i16 >= from;
                let offset = i64::from(offset).wrapping_add(if pushed { 8 } else { 0 });
                Ok(self.sp.wrapping_offset(offset))
            }
        }
    }

    fn by_signal(&mut self, ip: i64, sp: i64, bp: i64) -> Result<(), End> {
        let frame = self.sp;
        let ip = self.read(frame.wrapping_offset(ip))?;
        let to = Addr::new(self.read(frame.wrapping_offset(sp))?);
        self.advance(to, true)?;
        self.arrive(ip, Bp::At(frame.wrapping_offset(bp)), true)
    }

    /// `(ip, rsp, rbp) = ([rbp + 8], rbp + 16, [rbp])`, if that looks like a frame.
    fn by_frame_pointer(&mut self) -> Result<(), End> {
        if matches!(self.bp, Bp::Lost) {
            return Err(End::NoRule);
        }
        let bp = self.bp()?;
        if bp.is_null() {
            // Only at the end of a chain does it mark the deepest frame: else it is any number.
            return Err(if self.guesses { End::Root } else { End::NoRule });
        }
        let size = bp.offset_from(self.sp).ok_or(End::NoRule)?;
        if size > MAX_FRAME || bp.get() & 7 != 0 {
            return Err(End::NoRule);
        }
        self.guesses = true;
        let ip = self.read(bp.wrapping_offset(8))?;
        if ip == 0 {
            return Err(End::NoRule);
        }
        self.advance(bp.wrapping_offset(16), false)?;
        self.arrive(ip, Bp::At(bp), false)?;
        self.frame = self.frame.marked();
        Ok(())
    }

    /// Moves rsp, if it may go there.
    #[inline]
    fn advance(&mut self, to: Addr, may_switch: bool) -> Result<(), End> {
        let lower = to <= self.sp;
        let aligned = to.get() & 7 == 0;
        if !aligned || (lower && (!may_switch || self.switches >= MAX_SWITCHES)) {
            return Err(End::Stuck);
        }
        self.switches = self.switches.wrapping_add(lower.into());
        self.sp = to;
        Ok(())
    }

    #[inline]
    fn arrive(&mut self, ip: u64, bp: Bp, signal: bool) -> Result<(), End> {
        if ip == 0 {
            return Err(End::Root);
        }
        if ip.wrapping_sub(LOWEST) >= USER_END - LOWEST {
            return Err(End::NoRule);
        }
        self.frame = if signal {
            Frame::interrupted_at(Addr::new(ip))
        } else {
            Frame::returning_to(Addr::new(ip))
        };
        self.bp = bp;
        self.signal = signal;
        Ok(())
    }

    #[inline]
    fn bp(&mut self) -> Result<Addr, End> {
        let value = match self.bp {
            Bp::Start(value) => {
                self.used_start_bp = true;
                value
            }
            Bp::Known(value) => value,
            Bp::At(at) => {
                let value = self.read(at)?;
                self.bp = Bp::Known(value);
                value
            }
            Bp::Lost => return Err(End::Unsupported),
        };
        Ok(Addr::new(value))
    }

    #[inline]
    fn read(&self, at: Addr) -> Result<u64, End> {
        let word = match self.guesses {
            false => self.mem.read_u64(at),
            true => self.mem.guess_u64(at),
        };
        word.map_err(|_| End::Unreadable)
    }
}
