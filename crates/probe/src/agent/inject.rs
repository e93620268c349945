//! How the agent gets into a process, and how functions are led to it.

use std::io;
use std::mem::offset_of;
use std::sync::Arc;

use leaktap_agent::layout::{Control, Descriptor, INSIDE, Region, SYSTEM};
use leaktap_agent::{
    HEADER_LEN, KEY_BITS, KEYS_AT, LEDGER_AT, PUSH_LEN, SHARED_LEN, STUB_LEN, Shape, Shared,
    TABLES, THREADS_AT,
};
use leaktap_image::{Mapping, hwcap2, mappings};
use leaktap_memory::{Addr, Svma};
use leaktap_tracee::{Memory, Stopped, Tid, Tracer, may_suspend_seccomp};
use leaktap_unwind::{Cfa, CfiSections, Row, Rule, SavedBp, Step, Table};

use super::plan::Plan;
use super::remote;
use super::room::Room;
use super::shape::{TWIN, way};
use super::stacks::Stacks;
use super::{Agent, CODE_LEN, Detour, remains};
use crate::detour::patch;
use crate::modules::Modules;
use crate::probepoint::Probepoint;
use crate::refusal::Refusal;
use leaktap_api::{Action, FunctionId};

/// Bytes from a stub to the next: the stub, and the displaced instructions with a jump back.
const STUB_ROOM: u64 = 128;

impl Agent {
    /// Gives the process of `memory`, all of whose threads are `stopped`, memory for the agent,
    /// near the
    /// functions that `plan` has a place for. Nothing is in it yet.
    ///
    /// # Errors
    /// As [`refusal`] tells beforehand, and what the system calls come to; nothing is left behind
    /// then.
    pub(crate) fn map(
        memory: &Memory,
        plan: Plan,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> Result<Agent, Refusal> {
        if let Some(refusal) = refusal(memory.process(), &plan) {
            return Err(refusal);
        }
        let syscall = plan.syscall.ok_or(Refusal::InjectionForbidden)?;
        let locked = memory.process().locked_kilobytes();
        let mut make = |at: Option<Addr>| {
            let at = at.ok_or(Refusal::NoMemoryInReach)?;
            with_calls(tracer, stopped, syscall, |calls, tid| {
                remote::map(calls, tid, memory, at, CODE_LEN)
            })
        };
        let made = match make(plan.room) {
            // Something is there by now.
            Err(Refusal::NoMemoryInReach) => {
                let now = mappings(memory.process().get());
                let now = now.map_err(|_| Refusal::InjectionForbidden)?;
                make(plan.room(&now))
            }
            made => made,
        };
        let (regions, shared) = made?;
        let shared = Arc::new(shared);
        let agent = Agent {
            memory: memory.clone(),
            room: Room::new(Arc::clone(&shared), regions.shared.start),
            shared,
            regions,
            stacks: Stacks::default(),
            detours: Vec::new(),
            is_unguarded: false,
            parts: Vec::new(),
            plan,
            locked,
        };
        remains::note(&agent);
        Ok(agent)
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

    /// Fills that memory: code, a detour for each function that there is a place for, rows. The
    /// threads may run:
    /// nothing leads there yet.
    ///
    /// # Errors
    /// [`Refusal::InjectionForbidden`], [`Refusal::NoMemoryInReach`].
    pub(crate) fn fill(&mut self, modules: &mut Modules, depth: usize) -> Result<(), Refusal> {
        let forbidden = |_| Refusal::InjectionForbidden;
        let image = self.regions.code.start;
        let text = leaktap_agent::text();
        let text_at = image.wrapping_offset(HEADER_LEN as i64);
        self.memory.write(text_at, text).map_err(forbidden)?;
        let mut next = (HEADER_LEN + text.len() as u64).next_multiple_of(STUB_ROOM);
        for point in std::mem::take(&mut self.plan.points) {
            if next + STUB_ROOM <= CODE_LEN
                && let Some(detour) = self.detour(&point, next)?
            {
                self.detours.push(detour);
                next += STUB_ROOM;
            }
        }
        self.write_stubs()?;
        self.insert_rows(modules.rules());
        if !self.room.publish(modules.rules()) {
            return Err(Refusal::NoMemoryInReach);
        }
        self.write_control(modules, depth);
        let control = self.regions.shared.start.get().to_le_bytes();
        self.memory.write(image, &control).map_err(forbidden)
    }

    /// Leads the functions to the agent, but those to whose first instructions a thread will
    /// return: to one of
    /// `returned_to`. `threads` that stand there are moved on. Their stacks are among `mappings`.
    /// Returns whether each function could be patched.
    pub(crate) fn patch(
        &mut self,
        threads: &[&mut Stopped],
        returned_to: &[Addr],
        mappings: &[Mapping],
    ) -> Vec<(FunctionId, Result<(), Refusal>)> {
        self.find_stacks(threads, mappings);
        // Before the first is patched.
        remains::note(self);
        let mut done = Vec::new();
        for detour in &mut self.detours {
            let inner = detour.site.inner();
            let result = match returned_to.iter().any(|at| inner.contains(at)) {
                true => Err(Refusal::ThreadInRegion),
                false => detour.patch(&self.memory, threads),
            };
            detour.patched = result.is_ok();
            done.push((detour.function, result));
        }
        done
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
    /// the rest. True if that was the last.
    /// No thread is inside.
    ///
    /// # Errors
    /// [`Refusal::InjectionForbidden`] if no thread may make the calls, or all have been killed.
    pub(crate) fn unmap(
        &mut self,
        tracer: &mut Tracer,
        stopped: &mut [&mut Stopped],
    ) -> Result<bool, Refusal> {
        let (Some(syscall), Some(part)) = (self.plan.syscall, self.parts.last().cloned()) else {
            return Ok(true);
        };
        // Before: what the program maps in its place must not be taken for ours.
        remains::note_without_code(self);
        let unmapped = with_calls(tracer, stopped, syscall, |calls, _| {
            remote::unmap(calls, &part)
        });
        if unmapped.is_err() && self.parts.len() == self.regions.parts().len() {
            remains::note(self);
        }
        unmapped?;
        self.parts.pop();
        Ok(self.parts.is_empty())
    }

    /// Takes all of it away; nothing has ever led there.
    pub(crate) fn unmap_all(&mut self, tracer: &mut Tracer, stopped: &mut [&mut Stopped]) {
        self.parts = self.regions.parts();
        while self.unmap(tracer, stopped) == Ok(false) {}
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
        stopped: &mut [&mut Stopped],
    ) -> Result<(), Refusal> {
        let syscall = self.plan.syscall.ok_or(Refusal::InjectionForbidden)?;
        with_calls(tracer, stopped, syscall, |calls, _| {
            remote::unmap(calls, &self.regions.code)
        })
    }

    /// A detour for `point`, `offset` bytes into the code region. Nothing for one that there is no
    /// place for, or that
    /// is out of reach: it stays a breakpoint.
    fn detour(&self, point: &Probepoint, offset: u64) -> Result<Option<Detour>, Refusal> {
        let stub = self.regions.code.start.wrapping_offset(offset as i64);
        let moved_at = stub.wrapping_offset(STUB_LEN as i64);
        let Some(Ok(site)) = self.plan.site(point.address) else {
            return Ok(None);
        };
        let (Ok(moved), Ok(_)) = (site.moved(moved_at), site.jump(stub)) else {
            return Ok(None);
        };
        let Some(shape) = self.plan.shape(point) else {
            return Ok(None);
        };
        let written = self.memory.write(moved_at, &moved.code);
        written.map_err(|_| Refusal::InjectionForbidden)?;
        Ok(Some(Detour {
            function: point.function,
            known: point.known.clone(),
            address: point.address,
            site: site.clone(),
            stub,
            shape,
            moved,
            moved_at,
            patched: false,
        }))
    }

    /// Gives `rules` the rows of the agent's code and of the detours, so that walks get through.
    pub(super) fn insert_rows(&self, rules: &mut Table) {
        let start = self.regions.code.start;
        let (at, bytes) = leaktap_agent::eh_frame();
        let mut own = leaktap_unwind::rows(&CfiSections {
            base: Svma(0),
            eh_frame: Some((at, bytes)),
            ..CfiSections::default()
        });
        for detour in &self.detours {
            let offset = |at: Addr| at.offset_from(start).unwrap_or(0) as u32;
            own.rows.push(Row::new(offset(detour.stub), entered(8)));
            if detour.shape.is_full() {
                let pushed = offset(detour.stub) + PUSH_LEN as u32;
                own.rows.push(Row::new(pushed, entered(16)));
            }
            own.rows
                .extend(detour.moved.rows(offset(detour.moved_at), rules));
            let end = detour.stub.wrapping_offset(STUB_ROOM as i64);
            own.rows.push(Row::gap(offset(end)));
        }
        let own = Arc::new(own);
        rules.insert(self.regions.code.clone(), start, Box::new(move || own));
    }

    fn write_stubs(&mut self) -> Result<(), Refusal> {
        let code = self.regions.code.start;
        let mut detours = self.detours.iter();
        let twin = detours.find(|detour| detour.known.name == TWIN);
        let twin = twin.map(|detour| detour.moved_at);
        let mut failed = Ok(());
        self.detours.retain(|detour| {
            let Some((action, twin)) = action_of(detour, twin) else {
                return false;
            };
            let descriptor = Descriptor {
                original: detour.moved_at.get(),
                call: twin.unwrap_or(detour.moved_at).get(),
                action,
                kind: u32::from(detour.function.0),
            };
            let code = leaktap_agent::stub(detour.stub, code, detour.shape, &descriptor);
            if self.memory.write(detour.stub, &code).is_err() {
                failed = Err(Refusal::InjectionForbidden);
            }
            true
        });
        failed
    }

    fn write_control(&self, modules: &Modules, depth: usize) {
        let base = self.regions.shared.start.get();
        let put = |offset: usize, bytes: &[u8]| self.shared.write(offset as u64, bytes);
        let put_u64 = |offset, value: u64| put(offset, &value.to_le_bytes());
        let put_u32 = |offset, value: u32| put(offset, &value.to_le_bytes());
        let put_region = |offset: usize, range: &std::ops::Range<Addr>| {
            put_u64(offset + offset_of!(Region, start), range.start.get());
            put_u64(offset + offset_of!(Region, end), range.end.get());
        };
        put_u64(offset_of!(Control, ledger), base + LEDGER_AT);
        put_u64(offset_of!(Control, keys), base + KEYS_AT);
        put_u64(offset_of!(Control, threads), base + THREADS_AT);
        put_u32(offset_of!(Control, key_bits), KEY_BITS);
        put_u32(offset_of!(Control, tables), TABLES);
        let process = self.memory.process().in_its_namespace();
        put_u32(offset_of!(Control, process), process as u32);
        put_u32(offset_of!(Control, depth), depth as u32);
        put_u32(offset_of!(Control, region_count), 1);
        put_region(offset_of!(Control, regions), &self.regions.code);
        if let Some(range) = modules.allocator_code() {
            put_region(offset_of!(Control, allocator), range);
        }
        for (index, range) in modules.system().iter().take(SYSTEM).enumerate() {
            let offset = offset_of!(Control, system) + index * size_of::<Region>();
            put_region(offset, range);
        }
        let functions = self.detours.iter().map(|detour| detour.site.at());
        let modules = modules.inside(functions).into_iter();
        let inside = std::iter::once(self.regions.code.clone()).chain(modules);
        for (index, range) in inside.take(INSIDE).enumerate() {
            let offset = offset_of!(Control, inside) + index * size_of::<Region>();
            put_region(offset, &range);
        }
        let free = !self.memory.process().has_filtered_thread();
        self.allow_system_calls(free);
    }
}

impl Detour {
    fn patch(&self, memory: &Memory, threads: &[&mut Stopped]) -> Result<(), Refusal> {
        let jump = self.site.jump(self.stub)?;
        let inner = self.site.inner();
        let mut moves = Vec::new();
        for thread in threads {
            // One that has been killed is nowhere.
            let Ok(registers) = thread.registers() else {
                continue;
            };
            if inner.contains(&registers.ip()) {
                let to = self.in_moved(registers.ip());
                moves.push((thread, registers, to.ok_or(Refusal::ThreadInRegion)?));
            }
        }
        let writes = patch(self.site.at(), &jump);
        for write in &writes {
            if memory.write(write.at, &write.bytes).is_err() {
                for write in patch(self.site.at(), self.site.replaced()) {
                    let _ = memory.write(write.at, &write.bytes); // the memory has gone
                }
                return Err(Refusal::InjectionForbidden);
            }
        }
        for (thread, mut registers, to) in moves {
            registers.set_ip(to);
            let _ = thread.set_registers(&registers); // killed meanwhile
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

/// CFA = rsp + `offset`, rbp unchanged: with 8, as at the first instruction of every function.
fn entered(offset: i32) -> Rule {
    Rule::pack(Step::Call {
        cfa: Cfa::Sp(offset),
        bp: SavedBp::Unchanged,
    })
}

/// What a call does, and what is called in the place of the function. Nothing if that has no
/// detour.
fn action_of(detour: &Detour, twin: Option<Addr>) -> Option<(Action, Option<Addr>)> {
    let action = way(&detour.known)?.action;
    if !matches!(
        detour.shape,
        Shape::AroundThrowing | Shape::FullAroundThrowing
    ) {
        return Some((action, None));
    }
    Some((action, Some(twin?)))
}

/// Why the functions of `process` cannot be led to an agent, as far as that can be told beforehand:
/// what `attach` does, and `doctor` says.
pub(crate) fn refusal(process: Tid, plan: &Plan) -> Option<Refusal> {
    permitted(process).err().or_else(|| plan.refusal())
}

/// What forbids to make system calls in a process, or to give it memory; before one could kill it.
/// What
/// is to be told of filters, the kernel says only when it is asked to suspend one
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
/// program's affair: it may
/// have set it to 0.
fn has_fs_base(process: Tid) -> bool {
    /// Of asm/hwcap2.h.
    const FSGSBASE: u64 = 1 << 1;
    hwcap2(process.get()).is_ok_and(|allowed| allowed & FSGSBASE != 0)
}

/// Makes system calls in the first of `stopped` that can.
fn with_calls<T>(
    tracer: &mut Tracer,
    stopped: &mut [&mut Stopped],
    syscall: Addr,
    make: impl FnOnce(&mut leaktap_tracee::RemoteCalls<'_>, Tid) -> Result<T, Refusal>,
) -> Result<T, Refusal> {
    for thread in stopped {
        let tid = thread.tid();
        if let Ok(mut calls) = tracer.calls(thread, syscall) {
            let made = make(&mut calls, tid);
            let _ = calls.finish(); // fails for one that has been killed meanwhile
            return made;
        }
    }
    Err(Refusal::InjectionForbidden)
}
