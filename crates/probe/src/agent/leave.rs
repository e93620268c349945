//! How threads get out of the agent, so that it can be taken away.
//!
//! With all threads stopped, each is brought to where it would be without detours:
//! - A thread in the agent's own code has to run to one of the agent's exits ([`Held::AtWork`]). It
//!   gets there without anybody's help: it waits for us alone, and we have seen what it waits for.
//!   The exits are shut meanwhile: it goes round there, and does not die should we do.
//! - One in displaced instructions stands where the same are in the function.
//! - A call that the agent has made returns past the agent: its return address is exchanged for
//!   that of code which drops the agent's frame and returns. Which these are is on record
//!   ([`Agent::calls`]), on whatever stack they lie; no stack is walked. One that is overwritten,
//!   or unmapped, is nobody's any more.
//!
//! No signal frame holds an address of the agent's: a thread that gets a signal there is first
//! taken out ([`Agent::step_out`]). Only while there was no tracer, or in code that takes too long,
//! it may have been otherwise.
//!
//! What remains ([`Held`]) has to run for a while; until then nothing is changed.

use std::mem::offset_of;
use std::sync::atomic::Ordering::Release;
use std::time::{Duration, Instant};

use leaktap_agent::layout::{ALL, Call, Descriptor};
use leaktap_agent::{BACKS, EXIT_LEN, EXITS, Exit, GATE_PASS, OPEN, PUSH_LEN, SHUT};
use leaktap_arch::RETURN_LEN;
use leaktap_arch::signal_frame::are_segments;
use leaktap_ledger::STRIPES;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Memory, Registers, SignalInfo, Stop, Stopped, Tid, Tracer};

use super::Agent;
use super::held::Held;
use super::words::Words;
use crate::arch::AGENT_CALL_LEN;

/// The tracer's own sums in the ledger: no thread's number is as high.
pub const OWN_STRIPE: usize = STRIPES - 1;

/// How long a thread may take from where it is in the agent to an exit, step by step. Most take a
/// hundredth of that.
const STEPPING: Duration = Duration::from_secs(1);

impl Agent {
    /// Takes all of the process's threads out of the agent and restores the functions.
    ///
    /// # Errors
    /// Why that has to wait. Nothing has changed then.
    pub(crate) fn leave(&mut self, stopped: &AllStopped<'_>) -> Result<(), Held> {
        if self.is_overwritten() {
            return Err(Held::Overwritten);
        }
        let mut threads = Vec::new();
        let mut all = stopped.threads().iter();
        if all.any(|thread| self.is_at_work(thread)) {
            return Err(Held::AtWork);
        }
        for thread in stopped.threads() {
            self.at_exit(thread);
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
        if let Some(change) = self.change() {
            self.has_seen(change); // nobody is left who waits for that
        }
        self.restore(&self.memory, stopped);
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
    /// restored. `calls` are those that the thread which forked was in the middle of; they go on in
    /// the process itself, whose books stay as they are.
    pub(crate) fn leave_copy(
        &self,
        stopped: &AllStopped<'_>,
        memory: &Memory,
        calls: &[Addr],
    ) -> Result<(), Held> {
        let thread = stopped.threads().first();
        let Some((thread, registers)) = thread.and_then(|t| Some((t, t.registers().ok()?))) else {
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
    /// memory: the kernel tells where it is (`/proc/TID/syscall`, proc_pid_syscall(5)).
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
    /// frame leads back there. What it is about to do, it does first. Returns whether it did.
    pub(crate) fn step_out(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) -> bool {
        let is_out = |ip: Addr| !self.regions.is_code(ip) || self.is_gate(ip);
        // A fault in there is no signal of somebody's: it would occur again. And what nobody
        // handles has no frame: children end all the time, and few programs look at SIGCHLD. Who
        // stays stopped does not come out by itself.
        let is_handled =
            |info: SignalInfo| !info.is_fault() && stopped.tid().catches(info.signal());
        let is_due = match stopped.stop() {
            Stop::Group(_) => true,
            _ => stopped.signal_info().is_ok_and(is_handled),
        };
        if !self.is_at(stopped) || !is_due {
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
        let offset = code.and_then(|code| at.offset_from(code.start));
        offset.is_some_and(|offset| [GATE_PASS, GATE_PASS + EXIT_LEN].contains(&offset))
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
    /// those of `calls` that have not been overwritten.
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
    /// and can as well be made by the agent's caller: its return address is none of `slots` any
    /// more.
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
            registers.set_sp(sp.wrapping_offset(RETURN_LEN as i64 + Call::LEN as i64));
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
    /// its code, and what the kernel has saved two words behind it (`struct sigcontext` of
    /// asm/sigcontext.h: flags, then cs and ss as 64-bit code has them).
    fn has_signal_frame(&self, memory: &Memory, sp: Addr) -> bool {
        let words: Vec<Addr> = Words::new(memory).above(sp).collect();
        words.windows(3).any(|frame| match frame {
            [ip, _, segments] => self.regions.is_code(*ip) && are_segments(segments.get()),
            _ => false,
        })
    }

    /// Does for a thread what the instruction at its exit would do.
    fn at_exit(&self, thread: &Stopped) -> Option<()> {
        let mut registers = thread.registers().ok()?;
        let (at, exit) = self.exit(registers.ip())?;
        let descriptor = Addr::new(registers.scratch());
        let below_sp = registers.sp().wrapping_offset(-(RETURN_LEN as i64));
        let word = |at: Addr| self.memory.read_u64(at).ok();
        match exit {
            Exit::Return => {
                let ret = word(registers.sp())?;
                registers.return_to(Addr::new(ret));
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
                let back = at.wrapping_offset(EXIT_LEN as i64 + AGENT_CALL_LEN).get();
                self.memory.write(below_sp, &back.to_le_bytes()).ok()?;
                registers.set_ip(function);
                registers.set_sp(below_sp);
            }
        }
        thread.set_registers(&registers).ok()
    }

    /// The exit that a thread at `ip` stands at, and where it is.
    fn exit(&self, ip: Addr) -> Option<(Addr, Exit)> {
        let code = self.regions.code_of(ip)?;
        let offset = ip.offset_from(code.start)?;
        let mut exits = EXITS.iter();
        let is_it = |at: u64| [at, at + EXIT_LEN].contains(&offset);
        let (at, exit) = exits.find(|(at, _)| is_it(*at))?;
        Some((code.start.wrapping_offset(*at as i64), *exit))
    }

    /// Where all the exits are.
    pub(crate) fn exits(&self) -> impl Iterator<Item = Addr> + '_ {
        let codes = self.regions.codes.iter();
        codes.flat_map(|code| EXITS.map(|(at, _)| code.start.wrapping_offset(at as i64)))
    }

    /// Opens the exits, or shuts them: threads that come there stay there then, whatever happens to
    /// us.
    pub(crate) fn open_exits(&self, open: bool, _: &AllStopped<'_>) {
        let leaving = if open { 0 } else { ALL };
        self.shared.live().leaving.store(leaving, Release); // for nobody do they wait
        for at in self.exits() {
            let _ = self.memory.write(at, &[if open { OPEN } else { SHUT }]); // it has gone
        }
    }

    /// Whether a thread is in the agent's own code, and has to run to get out of it.
    pub(crate) fn is_at_work(&self, thread: &Stopped) -> bool {
        thread.registers().is_ok_and(|registers| {
            self.exit(registers.ip()).is_none() && self.place(&registers).is_err()
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
}
