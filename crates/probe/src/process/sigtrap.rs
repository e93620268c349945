//! What the program does with SIGTRAP stays as it is.
//!
//! For an int3 met by a thread that blocks SIGTRAP, or in a program that ignores it, the kernel
//! clears the bit in the thread's mask and makes SIG_DFL the handler (force_sig_info_to_task of
//! kernel/signal.c), before the tracer sees the stop. So what the program has set is known
//! beforehand: asked for at attach, and read from the arguments when it calls sigaction or
//! pthread_sigmask. It is put back while the thread is held. Flags and mask of the handler are not
//! touched by the kernel.

use leaktap_arch::RED_ZONE;
use leaktap_arch::system_calls::RT_SIGACTION;
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{
    AllStopped, CallCode, CallError, Registers, RemoteCalls, Signal, Stopped, Tid, Tracer, Trapping,
};

use super::Process;
use crate::agent;
use crate::arch::long_branches;
use crate::breakpoints::Purpose;
use crate::masks::{Masks, TRAP};

/// `SIG_DFL`, `SIG_IGN`.
const DEFAULT: u64 = 0;
const IGNORE: u64 = 1;

/// Bytes of the kernel's `struct sigaction`: handler, flags, restorer, mask.
const ACTION_LEN: usize = 32;

/// The functions by which a program changes what is done with SIGTRAP, and where it is blocked.
pub(super) const FUNCTIONS: [&str; 3] = ["sigaction", "pthread_sigmask", "sigprocmask"];

/// What is known of it.
#[derive(Debug, Default)]
pub(super) struct Sigtrap {
    /// The handler; nothing if the program has set one that we could not ask for.
    handler: Option<u64>,
    masks: Masks,
    /// sigaction, and the functions that change masks.
    action_at: Option<Addr>,
    masks_at: Vec<Addr>,
    /// These have int3s.
    is_watched: bool,
    /// By what system calls are made, once it has been looked for.
    call_code: Option<Option<CallCode>>,
    /// What was seen that nothing had told of.
    seen: Option<Trapping>,
    /// A handler is gone for good.
    pub(super) lost: bool,
}

impl Process {
    /// Watches the functions that change what is done with SIGTRAP if threads may meet an int3.
    /// Where that begins while they run, what they have changed since is read.
    pub(super) fn watch_sigtrap(&mut self) {
        if !self.breakpoints.see_calls() {
            return;
        }
        self.arm_sigtrap();
        if !std::mem::replace(&mut self.sigtrap.is_watched, true) {
            self.read_sigtrap();
        }
    }

    /// Where detours alone are there, nobody meets an int3.
    pub(super) fn unwatch_sigtrap(&mut self, stopped: &AllStopped<'_>) {
        if self.breakpoints.see_calls() {
            return;
        }
        self.sigtrap.is_watched = false;
        let masks = std::mem::take(&mut self.sigtrap.masks_at);
        let all = masks.into_iter().chain(self.sigtrap.action_at.take());
        all.for_each(|at| self.breakpoints.lift(at, stopped));
    }

    /// What the kernel says of it without a stop. Before there was an agent, threads were stopped,
    /// and [asked](Process::ask_sigtrap).
    fn read_sigtrap(&mut self) {
        for thread in self.fs_bases.keys() {
            if let Some(mask) = thread.blocked_signals() {
                self.sigtrap.masks.seen(*thread, mask);
            }
        }
        let thread = self.fs_bases.keys().next();
        let known = self.sigtrap.handler;
        match thread.and_then(|thread| thread.on_sigtrap()) {
            Some(Trapping::Default) => self.sigtrap.handler = Some(DEFAULT),
            Some(Trapping::Ignored) => self.sigtrap.handler = Some(IGNORE),
            Some(now) if matches!(known, Some(DEFAULT | IGNORE)) => self.sigtrap.seen = Some(now),
            Some(Trapping::Caught) | None => {}
        }
    }

    /// Puts breakpoints on the functions that change what is done with SIGTRAP.
    fn arm_sigtrap(&mut self) {
        let image = self.modules.image();
        let find = |name: &str| image.resolve(name, &self.memory)?.code.addr();
        let [action, masks @ ..] = FUNCTIONS;
        self.sigtrap.action_at = find(action);
        let masks: Vec<Addr> = masks.into_iter().filter_map(find).collect();
        // One that calls another would be noted before the kernel does what it says.
        let calls_another = |at: &Addr| {
            masks
                .iter()
                .any(|other| other != at && self.leads_to(*at, *other))
        };
        self.sigtrap.masks_at = masks
            .iter()
            .copied()
            .filter(|at| !calls_another(at))
            .collect();
        let all = self.sigtrap.action_at.iter().chain(&self.sigtrap.masks_at);
        for &at in all {
            // One that cannot be set is as none.
            let _ = self.breakpoints.insert(at, Purpose::Signals);
        }
    }

    /// Whether the function at `one` calls the one at `other`, or jumps there.
    fn leads_to(&self, one: Addr, other: Addr) -> bool {
        let image = self.modules.image();
        let code = image.module_at(one).and_then(|module| {
            let symbol = module.file().symbol_at(module.svma(one))?;
            module
                .file()
                .bytes_at(symbol.svma, usize::try_from(symbol.size).ok()?)
        });
        let end = other.wrapping_offset(1);
        !long_branches(&code.unwrap_or_default(), one, &[other..end]).is_empty()
    }

    /// Finds out what the program does with SIGTRAP, before it may meet an int3.
    pub fn ask_sigtrap(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        for thread in stopped.threads() {
            if let Ok(mask) = thread.signal_mask() {
                self.sigtrap.masks.seen(thread.tid(), mask);
            }
        }
        let of = |thread: &&mut Stopped| thread.tid().on_sigtrap();
        self.sigtrap.handler = match stopped.threads().iter().find_map(of) {
            None | Some(Trapping::Default) => Some(DEFAULT),
            Some(Trapping::Ignored) => Some(IGNORE),
            Some(Trapping::Caught) => stopped
                .threads_mut()
                .iter_mut()
                .find_map(|thread| self.ask(tracer, thread)),
        };
    }

    /// Puts back what an int3 of ours has changed for `stopped`, which has just met it with
    /// `registers`; and notes what the function there is about to change.
    pub fn keep_sigtrap(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut Stopped,
        at: Addr,
        registers: &Registers,
    ) {
        let tid = stopped.tid();
        let Ok(mask) = stopped.signal_mask() else {
            return; // it has been killed
        };
        let mut is_blocked = self.sigtrap.masks.was_blocked(tid, mask);
        if let Some(seen) = self.sigtrap.seen.take() {
            self.learn(seen, tracer, stopped);
        }
        let handler = self.sigtrap.handler.unwrap_or(DEFAULT);
        let is_reset = match handler {
            DEFAULT => false,
            IGNORE => true,
            _ => is_blocked || tid.on_sigtrap() == Some(Trapping::Default),
        };
        let is_sent =
            (is_blocked || is_reset) && stopped.signal_info().is_ok_and(|info| !info.is_int3());
        if is_reset {
            // A handler is lost to those only who block the signal. With others about, it may be
            // one of them who has lost it, and whose stop is yet to be seen.
            is_blocked |= handler != IGNORE && self.sigtrap.masks.is_alone(tid);
            self.sigtrap.lost |= self.put_back(tracer, stopped, handler).is_none();
        }
        let mask = if is_blocked { mask | TRAP } else { mask };
        if is_blocked {
            let _ = stopped.set_signal_mask(mask); // fails if it has been killed
        }
        // One that waited, since it was blocked, came in the place of the int3's: it waits on.
        if is_blocked && is_sent {
            let _ = stopped.send_again(); // as above
        }
        self.look_for_change(tid, at, mask, registers);
    }

    /// Whether the program ignores SIGTRAP.
    pub(super) fn ignores_sigtrap(&self) -> bool {
        match self.breakpoints.see_calls() {
            true => self.sigtrap.handler == Some(IGNORE),
            false => {
                let thread = self.memory.process().living_thread();
                thread.on_sigtrap() == Some(Trapping::Ignored)
            }
        }
    }

    /// Threads were run to an int3, or stepped: the kernel takes an ignored SIGTRAP for one that
    /// kills then. If it was ignored, one of those that are `stopped` has it ignored again.
    pub(super) fn keep_ignored(
        &mut self,
        was_ignored: bool,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) {
        if was_ignored {
            let mut threads = stopped.iter_mut();
            let is_kept = threads.any(|thread| self.put_back(tracer, thread, IGNORE).is_some());
            self.sigtrap.lost |= !is_kept;
        }
    }

    /// Whether a thread that reports a SIGTRAP blocks that: then an int3 has raised it, or brought
    /// up one that waited.
    pub fn blocks_sigtrap(&self, stopped: &Stopped) -> bool {
        let mask = stopped.signal_mask();
        mask.is_ok_and(|mask| self.sigtrap.masks.was_blocked(stopped.tid(), mask))
    }

    /// A thread begins, made by `parent`.
    pub fn inherits_mask(&mut self, thread: Tid, parent: Tid) {
        self.sigtrap.masks.begins(thread, parent);
    }

    /// A thread is gone.
    pub(super) fn forget_mask(&mut self, thread: Tid) {
        self.sigtrap.masks.gone(thread);
    }

    /// Time passes: the program may have set a handler by a system call of its own.
    pub fn look_at_sigtrap(&mut self) {
        if self.sigtrap.handler == Some(DEFAULT) && self.breakpoints.see_calls() {
            let now = self.memory.process().on_sigtrap();
            self.sigtrap.seen = now.filter(|now| *now != Trapping::Default);
        }
    }

    /// Whether a handler for SIGTRAP was lost, that the program had set by a system call of its
    /// own, or that could not be put back.
    pub fn has_lost_sigtrap(&self) -> bool {
        self.sigtrap.lost
    }

    /// The program was `seen` not to die of SIGTRAP, and nothing had told of that.
    fn learn(&mut self, seen: Trapping, tracer: &mut Tracer, stopped: &mut Stopped) {
        let now = stopped.tid().on_sigtrap();
        match (seen, now) {
            (Trapping::Ignored, _) => self.sigtrap.handler = Some(IGNORE),
            (_, Some(Trapping::Caught)) => self.sigtrap.handler = self.ask(tracer, stopped),
            // This int3 has just taken the handler away.
            _ => self.sigtrap.lost = true,
        }
    }

    /// Reads the arguments of sigaction and pthread_sigmask.
    fn look_for_change(&mut self, tid: Tid, at: Addr, mask: u64, registers: &Registers) {
        let [first, second] = [0, 1].map(|n| registers.argument(n));
        let read = |at: u64| (at != 0).then(|| self.memory.read_u64(Addr::new(at)).ok())?;
        if self.sigtrap.action_at == Some(at) && first == Signal::TRAP.number() as u64 {
            self.sigtrap.handler = read(second).or(self.sigtrap.handler);
        } else if self.sigtrap.masks_at.contains(&at)
            && let Some(set) = read(second)
        {
            self.sigtrap.masks.changes(tid, mask, first, set);
        }
    }

    /// The handler, as the kernel knows it.
    fn ask(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) -> Option<u64> {
        self.with_action(tracer, stopped, |_, _, _| Ok(()))
    }

    /// Makes `handler` the handler again.
    fn put_back(&mut self, tracer: &mut Tracer, stopped: &mut Stopped, handler: u64) -> Option<()> {
        let memory = self.memory.clone();
        let set = self.with_action(tracer, stopped, |calls, at, now| {
            if now == DEFAULT {
                // A failure means that the process has been killed.
                let _ = memory.write(at, &handler.to_le_bytes());
                let signal = Signal::TRAP.number() as u64;
                calls.call(RT_SIGACTION, [signal, at.get(), 0, 8, 0, 0])?;
            }
            Ok(())
        });
        set.map(drop)
    }

    /// Has `stopped` read its action for SIGTRAP to its stack, hands that place and the handler to
    /// `change`, and puts the stack back. Returns the handler.
    fn with_action(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut Stopped,
        change: impl FnOnce(&mut RemoteCalls<'_>, Addr, u64) -> Result<(), CallError>,
    ) -> Option<u64> {
        let code = self.call_code()?;
        let sp = stopped.registers().ok()?.sp();
        let below = sp.wrapping_offset(-(RED_ZONE as i64) - ACTION_LEN as i64);
        let at = Addr::new(below.get() & !0xf);
        let mut before = [0; ACTION_LEN];
        self.memory.read(at, &mut before).ok()?;
        let made = || {
            let mut calls = tracer.calls(stopped, code).ok()?;
            let signal = Signal::TRAP.number() as u64;
            calls
                .call(RT_SIGACTION, [signal, 0, at.get(), 8, 0, 0])
                .ok()?;
            let now = self.memory.read_u64(at).ok()?;
            change(&mut calls, at, now).ok()?;
            Some(now)
        };
        let made = made();
        let _ = self.memory.write(at, &before); // killed meanwhile
        made
    }

    fn call_code(&mut self) -> Option<CallCode> {
        let near = self.sigtrap.action_at;
        let find = || agent::call_code(self.modules.image(), &self.memory, near.as_slice());
        *self.sigtrap.call_code.get_or_insert_with(find)
    }
}
