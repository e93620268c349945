//! How threads get out of the agent, so that it can be taken away.
//!
//! With all threads stopped, each is brought to where it would be without detours:
//! - A thread in the agent's own code is run, alone, to one of the agent's exits. It gets there
//!   without anybody's help: it waits for us alone, and we have seen what it waits for.
//! - One in displaced instructions stands where the same are in the function.
//! - A call that the agent has made returns past the agent: its return address is exchanged for
//!   that of code which drops
//!   the agent's frame and returns. Which these are is on record ([`Agent::calls`]), on whatever
//!   stack they lie; no stack is
//!   walked. One that is overwritten, or unmapped, is nobody's any more.
//!
//! No signal frame holds an address of the agent's: a thread that gets a signal there is first
//! taken out
//! ([`Agent::step_out`]). Only while there was no tracer, or in code that takes too long, it may
//! have been otherwise.
//!
//! What remains ([`Held`]) has to run for a while; until then nothing is changed.

use std::mem::offset_of;
use std::ops::Range;
use std::time::{Duration, Instant};

use leaktap_agent::layout::{ALL, Call, Descriptor};
use leaktap_agent::{BACKS, EXITS, Exit, GATE_PASS, HEADER_LEN, PUSH_LEN, TEXT_LEN, text};
use leaktap_ledger::STRIPES;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{Memory, Registers, Stopped, Tid, Tracer};

use super::Agent;
use super::held::Held;
use crate::breakpoints::INT3;

/// The tracer's own sums in the ledger: no thread's number is as high.
pub const OWN_STRIPE: usize = STRIPES - 1;

/// Bytes of a stack that are searched.
const SEARCHED: usize = 256 << 10;

/// How long a thread may take from where it is in the agent to an exit, step by step. Most take a
/// hundredth of that.
const STEPPING: Duration = Duration::from_secs(1);

impl Agent {
    /// Takes all of the process's threads out of the agent and restores the functions.
    ///
    /// # Errors
    /// Why that has to wait. Nothing has changed then.
    pub(crate) fn leave(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> Result<(), Held> {
        if self.is_overwritten() {
            return Err(Held::Overwritten);
        }
        // Who waits for us is on its way out.
        if let Some(change) = self.change() {
            self.has_seen(change);
        }
        let run_out = self.none_waits(ALL, |agent| agent.run_out(tracer, stopped));
        run_out?;
        let mut threads = Vec::new();
        for thread in stopped.iter() {
            let Ok(registers) = thread.registers() else {
                continue; // killed
            };
            let ip = self.place(&registers)?;
            if self.is_unguarded && self.has_signal_frame(&self.memory, registers.sp()) {
                return Err(Held::InHandler);
            }
            threads.push((thread, registers, ip));
        }
        let calls = self.calls().ok_or(Held::NotOnRecord)?;
        let mut slots = self.slots(&calls, &self.memory)?;
        self.restore(&self.memory);
        self.shared.put_all_back(OWN_STRIPE);
        for (thread, registers, ip) in threads {
            if let Some(ip) = ip {
                self.move_to(ip, thread, registers, &mut slots);
            }
        }
        self.redirect(&slots, &self.memory);
        self.parts = self.regions.parts();
        Ok(())
    }

    /// As [`Agent::leave`] for the one thread of a copy of the process, whose functions have been
    /// restored. `calls` are those
    /// that the thread which forked was in the middle of; they go on in the process itself, whose
    /// books stay as they are.
    pub(crate) fn leave_copy(
        &self,
        thread: &Stopped,
        memory: &Memory,
        calls: &[Addr],
    ) -> Result<(), Held> {
        let Ok(registers) = thread.registers() else {
            return Err(Held::AtWork); // killed
        };
        let ip = self.place(&registers)?;
        if self.has_signal_frame(memory, registers.sp()) {
            return Err(Held::InHandler);
        }
        let mut slots = self.slots(calls, memory)?;
        if let Some(ip) = ip {
            self.move_to(ip, thread, registers, &mut slots);
        }
        self.redirect(&slots, memory);
        Ok(())
    }

    /// Whether a thread that is `asleep` sleeps in the agent's own code, for a page of the shared
    /// memory: the kernel
    /// tells where it is (`/proc/TID/syscall`, proc_pid_syscall(5)).
    pub(crate) fn may_have(&self, asleep: Tid) -> bool {
        let regions = &self.regions;
        asleep.asleep_at().is_none_or(|(_, ip)| regions.is_code(ip))
    }

    /// Whether a thread is in the agent's code.
    pub(crate) fn is_at(&self, stopped: &Stopped) -> bool {
        let registers = stopped.registers();
        registers.is_ok_and(|now| self.regions.is_code(now.ip()))
    }

    /// Takes a thread that is about to handle a signal out of the agent's code, so that no signal
    /// frame leads back
    /// there. What it is about to do, it does first.
    /// Returns whether it did.
    pub(crate) fn step_out(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) -> bool {
        let is_out = |ip: Addr| !self.regions.is_code(ip) || self.is_gate(ip);
        // A fault in there is no signal of somebody's: it would occur again.
        let is_fault = stopped.signal_info().is_ok_and(|info| info.is_fault());
        if !self.is_at(stopped) || is_fault {
            return false;
        }
        let deadline = Instant::now() + STEPPING;
        let fs = stopped.registers().map_or(ALL, |now| now.fs_base());
        let is_out = self.none_waits(fs, |_| tracer.step_out(stopped, &is_out, deadline));
        match is_out {
            Ok(true) => self.back_to_gate(stopped),
            Ok(false) | Err(_) => self.is_unguarded = true,
        }
        true
    }

    /// A thread that has not been told whether it may go on asks again, when the signal has been
    /// handled.
    fn back_to_gate(&self, stopped: &Stopped) {
        let Ok(mut registers) = stopped.registers() else {
            return; // killed
        };
        if self.is_gate(registers.ip())
            && let Some(address) = self.gate(&registers)
        {
            registers.set_ip(address);
            let _ = stopped.set_registers(&registers); // killed meanwhile
        }
    }

    /// Whether the exit by which a thread leaves the agent that has asked us is at `at`.
    fn is_gate(&self, at: Addr) -> bool {
        let code = self.regions.code_of(at);
        code.and_then(|code| at.offset_from(code.start)) == Some(GATE_PASS)
    }

    /// Where a thread stands in its function, if it is in displaced instructions, and how many
    /// bytes are to be taken off its stack.
    fn place(&self, registers: &Registers) -> Result<Option<(Addr, i64)>, Held> {
        if !self.regions.is_code(registers.ip()) {
            return Ok(None);
        }
        self.original(registers.ip()).map(Some).ok_or(Held::AtWork)
    }

    /// Where, on whatever stacks, return addresses to the agent are, right below a [`Call`] each:
    /// those of `calls` that
    /// have not been overwritten.
    fn slots(&self, calls: &[Addr], memory: &Memory) -> Result<Vec<Addr>, Held> {
        let is_back = |word: Addr| {
            let code = self.regions.code_of(word);
            let offset = code.and_then(|code| word.offset_from(code.start));
            offset.is_some_and(|offset| BACKS.contains(&offset))
        };
        let mut slots = Vec::new();
        for call in calls {
            let slot = Addr::new(Call::return_slot(call.get()));
            match memory.read_u64(slot).map(Addr::new) {
                Ok(word) if is_back(word) => slots.push(slot),
                Ok(word) if self.regions.is_code(word) => return Err(Held::MayThrow),
                _ => {}
            }
        }
        // One that goes on after another has returned is named twice.
        slots.sort_unstable();
        slots.dedup();
        match self.plan.way_out {
            None if !slots.is_empty() => Err(Held::NoWayOut),
            _ => Ok(slots),
        }
    }

    /// Puts a thread at `ip`. If the agent has just called that function, the call has not begun,
    /// and can as well be made by
    /// the agent's caller: its return address is none of `slots` any more.
    fn move_to(
        &self,
        (ip, pushed): (Addr, i64),
        thread: &Stopped,
        mut registers: Registers,
        slots: &mut Vec<Addr>,
    ) {
        let sp = registers.sp().wrapping_offset(pushed);
        registers.set_sp(sp);
        let at_entry = self.detours.iter().any(|detour| ip == detour.site.at());
        let begun = slots.iter().position(|slot| *slot == sp);
        if let Some(index) = begun.filter(|_| at_entry) {
            slots.swap_remove(index);
            registers.set_sp(sp.wrapping_offset(8 + Call::LEN as i64));
        }
        registers.set_ip(ip);
        let _ = thread.set_registers(&registers); // killed meanwhile
    }

    /// Has calls return past the agent.
    fn redirect(&self, slots: &[Addr], memory: &Memory) {
        let past = self.plan.way_out.unwrap_or_default().get();
        for slot in slots {
            let _ = memory.write(*slot, &past.to_le_bytes()); // killed meanwhile
        }
    }

    /// Whether a signal frame on the stack above `sp` leads to the agent: an instruction pointer to
    /// its code, and what the kernel
    /// has saved two words behind it (`struct sigcontext` of asm/sigcontext.h: flags, then cs and
    /// ss as 64-bit code has them).
    fn has_signal_frame(&self, memory: &Memory, sp: Addr) -> bool {
        const SEGMENTS: u64 = 0x002b_0000_0000_0033;
        let words: Vec<Addr> = words_on_stack(memory, sp).collect();
        words.windows(3).any(|frame| match frame {
            [ip, _, segments] => {
                self.regions.is_code(*ip) && segments.get() & !0xffff_0000 == SEGMENTS
            }
            _ => false,
        })
    }

    /// Where in its function a thread at `at` in the agent's code region stands, and how many bytes
    /// are to be taken off its stack.
    fn original(&self, at: Addr) -> Option<(Addr, i64)> {
        self.detours.iter().find_map(|detour| {
            // A stub has only named the probe: in a register that nobody expects anything in, or on
            // the stack.
            let stub = detour.stub..detour.moved_at;
            if stub.contains(&at) {
                let has_pushed = at == detour.stub.wrapping_offset(PUSH_LEN as i64);
                let pushed = if detour.shape.is_full() && has_pushed {
                    8
                } else {
                    0
                };
                return Some((detour.site.at(), pushed));
            }
            let offset = usize::try_from(at.offset_from(detour.moved_at)?).ok()?;
            match offset < detour.moved.code.len() {
                true => Some((detour.moved.original(offset)?, 0)),
                false => None,
            }
        })
    }

    /// Whether a thread is in the agent's own code.
    pub(crate) fn has_inside(&self, stopped: &[&mut Stopped]) -> bool {
        let is_own = |at: Addr| self.codes().iter().any(|code| own_code(code).contains(&at));
        let mut threads = stopped.iter();
        threads.any(|thread| thread.registers().is_ok_and(|now| is_own(now.ip())))
    }

    /// Where int3s are while threads are run out of it, and what is there else.
    pub(crate) fn exits(&self) -> impl Iterator<Item = (Addr, u8)> + '_ {
        let text = |exit: u64| text().get(exit.checked_sub(HEADER_LEN)? as usize).copied();
        let of = move |code: &Range<Addr>| {
            let start = code.start;
            let at = move |(exit, _)| Some((start.wrapping_offset(exit as i64), text(exit)?));
            EXITS.into_iter().filter_map(at)
        };
        self.codes().iter().flat_map(of)
    }

    /// Runs each thread that is in the agent's own code to an exit.
    fn run_out(&self, tracer: &mut Tracer, stopped: &mut [&mut Stopped]) -> Result<(), Held> {
        let mut all = true;
        for code in &self.regions.codes {
            all &= self.run_out_of(code, tracer, stopped);
        }
        all.then_some(()).ok_or(Held::AtWork)
    }

    /// As [`Agent::run_out`], of one region. False if a thread did not get out.
    fn run_out_of(
        &self,
        code: &Range<Addr>,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> bool {
        let own = own_code(code);
        let is_inside =
            |thread: &Stopped| thread.registers().is_ok_and(|now| own.contains(&now.ip()));
        if !stopped.iter().any(|thread| is_inside(thread)) {
            return true;
        }
        let mut saved = Vec::new();
        for (exit, _) in EXITS {
            let at = code.start.wrapping_offset(exit as i64);
            let mut byte = [0];
            if self.memory.read(at, &mut byte).is_ok() {
                saved.push((at, byte));
            }
            let _ = self.memory.write(at, &[INT3]); // killed
        }
        let mut all = true;
        for thread in stopped.iter_mut() {
            if is_inside(thread) {
                all &= tracer.run_to_int3(thread).is_ok() && self.at_exit(thread).is_some();
            }
        }
        for (at, byte) in saved {
            let _ = self.memory.write(at, &byte); // killed
        }
        all
    }

    /// Does for a thread what the instruction at its exit would do.
    fn at_exit(&self, thread: &Stopped) -> Option<()> {
        let mut registers = thread.registers().ok()?;
        let code = self.regions.code_of(registers.ip())?;
        let offset = registers.ip().offset_from(code.start)?;
        let (_, exit) = EXITS.iter().find(|(at, _)| *at == offset)?;
        let descriptor = Addr::new(registers.r11());
        let below_sp = registers.sp().wrapping_offset(-8);
        let word = |at: Addr| self.memory.read_u64(at).ok();
        match exit {
            Exit::Return => {
                registers.set_ip(Addr::new(word(registers.sp())?));
                registers.set_sp(registers.sp().wrapping_offset(8));
            }
            Exit::Pass => registers.set_ip(Addr::new(word(descriptor)?)),
            // Who has asked us asks again, should we not go after all.
            Exit::FullPass => match self.gate(&registers) {
                Some(function) => registers.set_ip(function),
                None => registers.set_ip(Addr::new(word(below_sp)?)),
            },
            Exit::Call | Exit::FullCall => {
                let called = match exit {
                    Exit::FullCall => below_sp,
                    _ => descriptor.wrapping_offset(offset_of!(Descriptor, call) as i64),
                };
                let function = Addr::new(word(called)?);
                let back = registers.ip().wrapping_offset(CALL_LEN).get();
                self.memory.write(below_sp, &back.to_le_bytes()).ok()?;
                registers.set_ip(function);
                registers.set_sp(below_sp);
            }
        }
        thread.set_registers(&registers).ok()
    }
}

/// What of a code region is the same in all of them, but for the header page.
fn own_code(code: &Range<Addr>) -> Range<Addr> {
    let start = code.start.wrapping_offset(HEADER_LEN as i64);
    start..start.wrapping_offset(TEXT_LEN as i64)
}

/// Bytes of `call [r11 + 8]`, and of `call [rsp - 8]`.
const CALL_LEN: i64 = 4;

/// What lies on a stack from `from` up.
pub(crate) fn words_on_stack(memory: &Memory, from: Addr) -> impl Iterator<Item = Addr> {
    let mut stack = vec![0; SEARCHED];
    let len = memory.read_partial(from, &mut stack);
    stack.truncate(len);
    let words: Vec<_> = stack
        .chunks_exact(8)
        .filter_map(|word| Some(Addr::new(u64::from_le_bytes(*word.first_chunk()?))))
        .collect();
    words.into_iter()
}
