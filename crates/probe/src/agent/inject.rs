//! How the agent gets into a process, and how functions are led to it.

use std::io;
use std::sync::Arc;

use leaktap_agent::{SHARED_LEN, Shared};
use leaktap_image::{Mapping, hwcap2, mappings};
use leaktap_memory::Addr;
use leaktap_tracee::{AllStopped, Memory, Stopped, Tid, Tracer, may_suspend_seccomp};

use super::caller::with_calls;
use super::plan::Plan;
use super::remote;
use super::room::Room;
use super::stacks::Stacks;
use super::{Agent, CODE_LEN, Detour, remains, unled};
use crate::detour::patch;
use crate::refusal::Refusal;

impl Agent {
    /// Gives the process of `memory` memory for the agent, near the functions that `plan` has a
    /// place for. Nothing is in it yet.
    ///
    /// # Errors
    /// As [`refusal`] tells beforehand, and what the system calls come to; nothing is left behind
    /// then.
    pub(crate) fn map(
        memory: &Memory,
        mut plan: Plan,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<Agent, Refusal> {
        let locked = memory.process().locked_kilobytes();
        let mut make = |plan: &Plan| {
            if let Some(refusal) = refusal(memory.process(), plan) {
                return Err(refusal);
            }
            let code = plan.call_code.ok_or(Refusal::InjectionForbidden)?;
            let at: Vec<Addr> = plan.groups.iter().map(|group| group.at).collect();
            with_calls(tracer, stopped.threads_mut(), code, |calls, tid| {
                remote::map(calls, tid, memory, &at, CODE_LEN)
            })
        };
        let made = match make(&plan) {
            // Something is there by now.
            Err(Refusal::NoMemoryInReach) => {
                let now = mappings(memory.process().get());
                plan.place(&now.map_err(|_| Refusal::InjectionForbidden)?);
                make(&plan)
            }
            made => made,
        };
        let (regions, shared) = made?;
        let shared = Arc::new(shared);
        Ok(Agent {
            memory: memory.clone(),
            room: Room::new(Arc::clone(&shared), regions.shared.start),
            shared,
            regions,
            stacks: Stacks::default(),
            detours: Vec::new(),
            is_unguarded: false,
            parts: Vec::new(),
            open: Vec::new(),
            plan,
            locked,
            unread: 0,
            seen: 0,
            waker: None,
        })
    }

    /// Whether the process has locked its memory since, and with it what is reserved here: the next
    /// page that it maps would fill it.
    pub(crate) fn is_locked(&self) -> bool {
        let now = self.memory.process().locked_kilobytes();
        let more = now
            .zip(self.locked)
            .map(|(now, before)| i64::from(now) - i64::from(before));
        more.is_none_or(|more| more >= (SHARED_LEN >> 10).cast_signed())
    }

    /// Leads the functions to the agent, but those to whose first instructions a thread will
    /// return: to one of `returned_to`. Threads that stand there are moved on. Their stacks are
    /// among `mappings`. Returns whether each function could be patched.
    pub(crate) fn patch(
        &mut self,
        stopped: &AllStopped<'_>,
        returned_to: &[Addr],
        mappings: &[Mapping],
    ) -> Vec<(Addr, Result<(), Refusal>)> {
        self.find_stacks(stopped.threads(), mappings);
        // Before the first is patched.
        remains::note(self, &self.regions.codes);
        let mut done = Vec::new();
        for detour in &mut self.detours {
            let inner = detour.site.inner();
            let result = match returned_to.iter().any(|at| inner.contains(at)) {
                true => Err(Refusal::ThreadInRegion),
                false => detour.patch(&self.memory, stopped),
            };
            detour.patched = result.is_ok();
            done.push(result);
        }
        self.go_one_way(&mut done, stopped);
        let addresses = self.detours.iter().map(|detour| detour.address);
        addresses.zip(done).collect()
    }

    /// Where some free could not be patched, as `done` says of each detour, none of what is of its
    /// heap is.
    fn go_one_way(&mut self, done: &mut [Result<(), Refusal>], stopped: &AllStopped<'_>) {
        let detours = self.detours.iter().zip(done.iter());
        let failed = detours.filter_map(|(detour, done)| {
            let refusal = done.err().filter(|_| detour.known.action.is_free())?;
            Some((detour.family, refusal))
        });
        let failed: Vec<_> = failed.collect();
        for (detour, done) in self.detours.iter_mut().zip(done) {
            let mut failed = failed.iter().filter(|_| !detour.known.action.is_mapping());
            if let Some((_, refusal)) = failed.find(|(family, _)| *family == detour.family)
                && detour.patched
            {
                detour.restore(&self.memory, stopped);
                detour.patched = false;
                *done = Err(*refusal);
            }
        }
    }

    /// Whether any function of a heap jumps here.
    pub(crate) fn is_of_use(&self) -> bool {
        let mut patched = self.detours.iter().filter(|detour| detour.patched);
        patched.any(|detour| detour.known.is_of_heap())
    }

    fn find_stacks(&mut self, threads: &[&mut Stopped], mappings: &[Mapping]) {
        self.room.change_stacks(&mut self.stacks, |stacks| {
            for registers in threads.iter().filter_map(|thread| thread.registers().ok()) {
                stacks.add(&registers, mappings);
            }
            true
        });
    }

    /// Takes the agent's memory away: at first the code, which a forked child would get, too, then
    /// the rest. True if that was the last. No thread is inside.
    ///
    /// # Errors
    /// [`Refusal::InjectionForbidden`] if no thread may make the calls, or all have been killed.
    pub(crate) fn unmap(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> Result<bool, Refusal> {
        let Some(code) = self.plan.call_code else {
            return Ok(true);
        };
        let mut left = std::mem::take(&mut self.parts);
        let open = std::mem::take(&mut self.open);
        let unmapped = with_calls(tracer, stopped, code, |calls, _| {
            for fd in open {
                remote::close(calls, fd);
            }
            while let [others @ .., part] = &left[..] {
                if let [_, codes @ ..] = others {
                    // Until it is gone it has a mark instead: we may be killed.
                    unled::mark(&self.memory, part.start);
                    remains::note(self, codes);
                }
                remote::unmap(calls, part)?;
                left.pop();
                if left.len() <= 1 {
                    break; // all code is gone
                }
            }
            Ok(())
        });
        if let (Err(_), [_, codes @ ..]) = (unmapped, &left[..]) {
            remains::note(self, codes);
        }
        self.parts = left;
        unmapped?;
        Ok(self.parts.is_empty())
    }

    /// Takes all of it away; nothing has ever led there.
    pub(crate) fn unmap_all(&mut self, tracer: &mut Tracer, stopped: &mut AllStopped<'_>) {
        self.parts = self.regions.parts();
        while self.unmap(tracer, stopped.threads_mut()) == Ok(false) {}
    }

    /// Moves some of what it has counted to `home`, from `at` on, and frees the memory of the rest;
    /// see [`Shared::move_here`].
    pub(crate) fn bring_home(&self, home: &mut Shared, at: u64) -> io::Result<Option<u64>> {
        /// Half a millisecond's worth.
        const MOST: u64 = 2 << 20;
        home.move_here(&self.shared, at, MOST)
    }

    /// Takes the code away from a copy of the process, which has nothing else of the agent's.
    ///
    /// # Errors
    /// As for [`Agent::unmap`].
    pub(crate) fn unmap_code(
        &self,
        tracer: &mut Tracer,
        stopped: &mut AllStopped<'_>,
    ) -> Result<(), Refusal> {
        let code = self.plan.call_code.ok_or(Refusal::InjectionForbidden)?;
        with_calls(tracer, stopped.threads_mut(), code, |calls, _| {
            let mut codes = self.regions.codes.iter();
            codes.try_for_each(|code| remote::unmap(calls, code))
        })
    }
}

impl Detour {
    fn patch(&self, memory: &Memory, stopped: &AllStopped<'_>) -> Result<(), Refusal> {
        let jump = self.site.jump(self.stub)?;
        let inner = self.site.inner();
        let mut moves = Vec::new();
        for thread in stopped.threads() {
            // One that has been killed is nowhere.
            let Ok(registers) = thread.registers() else {
                continue;
            };
            if inner.contains(&registers.ip()) {
                let to = self.in_moved(registers.ip());
                moves.push((thread, registers, to.ok_or(Refusal::ThreadInRegion)?));
            }
        }
        // Before the bytes change, lest we die in between: the moved instructions lead back.
        for (thread, mut registers, to) in moves.iter().copied() {
            registers.set_ip(to);
            let _ = thread.set_registers(&registers); // killed meanwhile
        }
        for write in &patch(self.site.at(), &jump) {
            if memory.write(write.at, &write.bytes).is_err() {
                for write in patch(self.site.at(), self.site.replaced()) {
                    let _ = memory.write(write.at, &write.bytes); // the memory has gone
                }
                for (thread, registers, _) in moves {
                    let _ = thread.set_registers(&registers); // killed meanwhile
                }
                return Err(Refusal::InjectionForbidden);
            }
        }
        Ok(())
    }

    /// Where in the moved instructions a thread goes on that is at `ip`, one of the displaced ones.
    fn in_moved(&self, ip: Addr) -> Option<Addr> {
        let offset = usize::try_from(ip.offset_from(self.site.at())?).ok()?;
        let mut boundaries = self.moved.map.iter();
        let boundary = boundaries.find(|boundary| boundary.original == offset)?;
        Some(self.moved_at.wrapping_offset(boundary.relocated as i64))
    }
}

/// Why the functions of `process` cannot be led to an agent, as far as that can be told beforehand:
/// what `attach` does, and `doctor` says.
pub(crate) fn refusal(process: Tid, plan: &Plan) -> Option<Refusal> {
    permitted(process).err().or_else(|| plan.refusal())
}

/// What forbids to make system calls in a process, or to give it memory; before one could kill it.
/// What is to be told of filters, the kernel says only when it is asked to suspend one
/// ([`Tracer::calls`]).
fn permitted(process: Tid) -> Result<(), Refusal> {
    let free = (!process.is_filtered() || may_suspend_seccomp())
        // A displaced call would not leave its return address there.
        && !process.has_shadow_stack();
    if !free {
        return Err(Refusal::InjectionForbidden);
    }
    if !has_fs_base(process) {
        return Err(Refusal::NoFsBase);
    }
    match process.has_few_addresses() {
        true => Err(Refusal::NoMemoryInReach),
        false => Ok(()),
    }
}

/// Whether threads may read their fs base by an instruction. What lies in memory there is the
/// program's affair: it may have set it to 0.
fn has_fs_base(process: Tid) -> bool {
    /// Of asm/hwcap2.h.
    const FSGSBASE: u64 = 1 << 1;
    hwcap2(process.get()).is_ok_and(|allowed| allowed & FSGSBASE != 0)
}
