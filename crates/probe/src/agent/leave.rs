//! How threads get out of the agent, so that it can be taken away.
//!
//! With all threads stopped, each is brought to where it would be without detours:
//! - A thread in the agent's own code is run, alone, to one of the agent's exits. It gets there without
//!   anybody's help: the agent waits for nobody.
//! - One in displaced instructions stands where the same are in the function.
//! - One inside a function that the agent has called returns past the agent: its return address is
//!   exchanged for that of code which drops the agent's frame and returns. It may be blocked for ever.
//!
//! What remains (a signal handler that interrupted the agent's own code, an operator new that has yet
//! to be asked why it failed) has to run for a while; until then nothing is changed.

use std::ops::ControlFlow;
use std::ops::Range;

use leaktap_agent::layout::{Action, Call, Descriptor, Old};
use leaktap_agent::{BACK, EXITS, Exit, HEADER_LEN};
use leaktap_ledger::{Block, STRIPES, StackId};
use leaktap_memory::{Addr, ReadMemory, StackOverlay};
use leaktap_tracee::{Memory, Registers, Stopped, Tid, Tracer};
use leaktap_unwind::{End, Start, Table, Visited, walk_with};

use super::Agent;
use super::shape::way;
use crate::breakpoints::INT3;

/// The tracer's own sums in the ledger: no thread's number is as high.
pub const OWN_STRIPE: usize = STRIPES - 1;

/// Bytes of a stack that are searched where a walk of it breaks off.
const SEARCHED: usize = 256 << 10;

/// Bytes of a stack that are copied before it is walked: as much as most walks need.
const COPIED: usize = 2 << 10;

/// How a thread stands to the agent.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Inside {
    /// It can be taken out: where it stands in the function, if in displaced instructions, and where on its
    /// stack are return addresses to the agent, right below a [`Call`].
    Out {
        ip: Option<Addr>,
        returns: Vec<Addr>,
    },
    /// It has to run first.
    Busy,
}

impl Agent {
    /// Takes all of the process's threads out of the agent and restores the functions; or does
    /// nothing, and returns false, if one of them has to run first.
    pub(crate) fn leave(
        &mut self,
        rules: &mut Table,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> bool {
        if !self.run_out(tracer, stopped) {
            return false;
        }
        let mut plans = Vec::new();
        for thread in stopped.iter() {
            let Ok(registers) = thread.registers() else {
                continue; // killed
            };
            let inside = self.inside(&registers, rules, &self.memory);
            if inside == Inside::Busy {
                return false;
            }
            plans.push((thread, registers, inside));
        }
        self.restore(&self.memory);
        for (thread, registers, inside) in plans {
            self.take_out(thread, registers, inside, &self.memory);
        }
        self.parts = self.regions.parts();
        true
    }

    /// The same for the one thread of a copy of the process, whose functions have been restored.
    pub(crate) fn leave_copy(&self, rules: &mut Table, thread: &Stopped, memory: &Memory) -> bool {
        let Ok(registers) = thread.registers() else {
            return false; // killed
        };
        let inside = self.inside(&registers, rules, memory);
        if inside == Inside::Busy {
            return false;
        }
        self.take_out(thread, registers, inside, memory);
        true
    }

    /// Whether a thread that is `asleep` has an address of the agent's code on its stack: the kernel tells where that is
    /// (`/proc/TID/syscall`, proc_pid_syscall(5)). True of one that is awake by now.
    pub(crate) fn may_have(&self, asleep: Tid) -> bool {
        let Some((sp, ip)) = asleep.asleep_at() else {
            return true;
        };
        let code = &self.regions.code;
        code.contains(&ip) || searched(&self.memory, sp, code)
    }

    /// Puts a thread where its function is. A call that had not returned has not happened.
    fn take_out(
        &self,
        thread: &Stopped,
        mut registers: Registers,
        inside: Inside,
        memory: &Memory,
    ) {
        let Inside::Out { ip, returns } = inside else {
            return;
        };
        // Just called by the agent: it has not begun, and can as well be called by its caller.
        let begun_at = registers.sp();
        let at_entry = self
            .detours
            .iter()
            .any(|detour| ip == Some(detour.site.at()));
        let not_begun = at_entry && returns.contains(&begun_at);
        if not_begun {
            registers.set_sp(begun_at.wrapping_offset(8 + Call::LEN as i64));
        }
        if let Some(ip) = ip {
            registers.set_ip(ip);
            let _ = thread.set_registers(&registers); // killed meanwhile
        }
        for slot in returns {
            if !(not_begun && slot == begun_at) {
                let past = self.plan.way_out.unwrap_or_default().get();
                let _ = memory.write(slot, &past.to_le_bytes()); // killed meanwhile
            }
            self.undo(slot.wrapping_offset(8), memory);
        }
    }

    /// How a thread stands that is not in the agent's own code.
    fn inside(&self, registers: &Registers, rules: &mut Table, memory: &Memory) -> Inside {
        let code = &self.regions.code;
        let mut at = registers.ip();
        let mut ip = None;
        if code.contains(&at) {
            let Some(original) = self.original(at) else {
                return Inside::Busy;
            };
            ip = Some(original);
            at = original;
        }
        let start = Start::stopped_at(at, registers.sp(), registers.bp());
        let back = code.start.wrapping_offset(BACK as i64);
        let mut returns = Vec::new();
        let mut busy = false;
        let mut top = registers.sp();
        let end = walk_all(start, memory, rules, |visited| {
            top = visited.sp;
            let address = visited.frame.address();
            if !code.contains(&address) {
                return;
            }
            let slot = visited.sp.wrapping_offset(-8);
            let returns_there = !visited.signal && address == back;
            match memory.read_u64(slot) {
                Ok(word) if returns_there && word == back.get() => returns.push(slot),
                _ => busy = true,
            }
        });
        busy |= end != End::Root && searched(memory, top, code);
        busy |= !returns.is_empty() && self.plan.way_out.is_none();
        match busy {
            true => Inside::Busy,
            false => Inside::Out { ip, returns },
        }
    }

    /// Where in its function a thread at `at` in the agent's code region stands.
    fn original(&self, at: Addr) -> Option<Addr> {
        self.detours.iter().find_map(|detour| {
            // A stub has only named the probe in a register that nobody expects anything in.
            let stub = detour.stub..detour.moved_at;
            if stub.contains(&at) {
                return Some(detour.site.at());
            }
            let offset = usize::try_from(at.offset_from(detour.moved_at)?).ok()?;
            match offset < detour.moved.code.len() {
                true => detour.moved.original(offset),
                false => None,
            }
        })
    }

    /// Runs each thread that is in the agent's own code to an exit. False if that failed.
    fn run_out(&self, tracer: &mut Tracer, stopped: &mut [&mut Stopped]) -> bool {
        let own = self.own_code();
        let is_inside =
            |thread: &Stopped| thread.registers().is_ok_and(|now| own.contains(&now.ip()));
        if !stopped.iter().any(|thread| is_inside(thread)) {
            return true;
        }
        let mut saved = Vec::new();
        for (exit, _) in EXITS {
            let at = self.regions.code.start.wrapping_offset(exit as i64);
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

    fn own_code(&self) -> Range<Addr> {
        let start = self.regions.code.start.wrapping_offset(HEADER_LEN as i64);
        let stubs = self.detours.iter().map(|detour| detour.stub).min();
        start..stubs.unwrap_or(start)
    }

    /// Does for a thread what the instruction at its exit would do.
    fn at_exit(&self, thread: &Stopped) -> Option<()> {
        let mut registers = thread.registers().ok()?;
        let offset = registers.ip().offset_from(self.regions.code.start)?;
        let (_, exit) = EXITS.iter().find(|(at, _)| *at == offset)?;
        let descriptor = Addr::new(registers.r11());
        let word = |at: Addr| self.memory.read_u64(at).ok();
        match exit {
            Exit::Return => {
                registers.set_ip(Addr::new(word(registers.sp())?));
                registers.set_sp(registers.sp().wrapping_offset(8));
            }
            Exit::Pass => registers.set_ip(Addr::new(word(descriptor)?)),
            Exit::Call => {
                let called =
                    descriptor.wrapping_offset(std::mem::offset_of!(Descriptor, call) as i64);
                let sp = registers.sp().wrapping_offset(-8);
                let back = registers.ip().wrapping_offset(CALL_LEN);
                self.memory.write(sp, &back.get().to_le_bytes()).ok()?;
                registers.set_ip(Addr::new(word(called)?));
                registers.set_sp(sp);
            }
        }
        thread.set_registers(&registers).ok()
    }

    /// A call that will not return to the agent: what it took out of the ledger goes back there, but
    /// for a free, which takes place.
    fn undo(&self, at: Addr, memory: &Memory) {
        let mut bytes = [0; Call::LEN];
        if memory.read(at, &mut bytes).is_err() {
            return;
        }
        let call = Call::from_bytes(&bytes);
        let mut detours = self.detours.iter();
        let detour = detours.find(|detour| detour.descriptor().get() == call.descriptor);
        let way = detour.and_then(|detour| Some(way(detour.function.function()?)));
        if !way.is_some_and(|way| way.action.shape() == Action::REALLOCATE) {
            return;
        }
        let [addr, ..] = call.arguments;
        let block = Block {
            addr,
            size: call.old.size,
            stack: StackId(call.old.stack),
            time: call.old.time,
        };
        let ledger = self.shared.ledger();
        let _ = match call.old.what {
            Old::BLOCK => ledger.restore(OWN_STRIPE, Some(block)),
            Old::UNKNOWN => ledger.restore(OWN_STRIPE, None),
            _ => Ok(()),
        }; // there is room: it has just been there
    }
}

/// Bytes of `call [r11 + 8]`.
const CALL_LEN: i64 = 4;

/// Return addresses on the stack of a thread with `registers`, and interrupted ones; all of
/// them, or what looks like one where the walk breaks off.
pub(crate) fn addresses_on_stack(
    registers: &Registers,
    memory: &Memory,
    rules: &mut Table,
) -> Vec<Addr> {
    let start = Start::stopped_at(registers.ip(), registers.sp(), registers.bp());
    let mut found = Vec::new();
    let mut top = registers.sp();
    let end = walk_all(start, memory, rules, |visited| {
        top = visited.sp;
        found.push(visited.frame.address());
    });
    found.drain(..found.len().min(1)); // where it stands itself
    if end != End::Root {
        found.extend(words_on_stack(memory, top));
    }
    found
}

fn walk_all(
    start: Start,
    memory: &Memory,
    rules: &mut Table,
    mut visit: impl FnMut(Visited),
) -> End {
    // All threads are stopped for this: one system call rather than one for each word.
    let mut copy = [0; COPIED];
    let len = memory.read_partial(start.sp, &mut copy);
    let overlay = StackOverlay::new(start.sp, &copy[..len], memory);
    walk_with(start, &overlay, rules, |visited| {
        visit(visited);
        ControlFlow::Continue(())
    })
}

fn searched(memory: &Memory, from: Addr, code: &Range<Addr>) -> bool {
    words_on_stack(memory, from).any(|word| code.contains(&word))
}

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
