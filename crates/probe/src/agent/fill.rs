//! What the agent's memory is filled with: its code, once for each group of functions, a stub for
//! each function, unwind rows, and what the agent has to know.

use std::mem::offset_of;
use std::ops::Range;
use std::sync::Arc;

use leaktap_agent::layout::{Control, Descriptor, INSIDE, Region, SYSTEM, kind};
use leaktap_agent::{
    HEADER_LEN, KEY_BITS, KEYS_AT, LEDGER_AT, MAPPINGS_AT, PUSH_LEN, STUB_LEN, SUMS_AT, Shape,
    TABLES, TEXT_LEN, THREADS_AT,
};
use leaktap_api::Action;
use leaktap_ledger::FamilyId;
use leaktap_memory::{Addr, Svma};
use leaktap_unwind::{Cfa, CfiSections, Row, Rule, SavedBp, Step, Table};

use super::shape::TWIN;
use super::{Agent, CODE_LEN, Detour, REGIONS, remains};
use crate::modules::Modules;
use crate::probepoint::Probepoint;
use crate::refusal::Refusal;

/// Bytes from a stub to the next: the stub, and the displaced instructions with a jump back.
const STUB_ROOM: u64 = 128;

/// How many stubs there is room for in a code region, and in what is noted of all.
pub(super) const STUBS: usize = {
    let noted = remains::MOST / REGIONS;
    let used = (HEADER_LEN + TEXT_LEN).next_multiple_of(STUB_ROOM);
    let room = ((CODE_LEN - used) / STUB_ROOM) as usize;
    if noted < room { noted } else { room }
};

impl Agent {
    /// Fills that memory: code, a detour for each function that there is a place for, rows. The
    /// threads may run: nothing leads there yet.
    ///
    /// # Errors
    /// [`Refusal::InjectionForbidden`], [`Refusal::NoMemoryInReach`].
    pub(crate) fn fill(&mut self, modules: &mut Modules, depth: usize) -> Result<(), Refusal> {
        let points = std::mem::take(&mut self.plan.points);
        for (index, code) in self.regions.codes.clone().into_iter().enumerate() {
            self.fill_code(index, code.start, &points)?;
        }
        self.write_stubs()?;
        self.insert_rows(modules.rules());
        if !self.room.publish(modules.rules()) {
            return Err(Refusal::NoMemoryInReach);
        }
        let told = points.iter().filter(|point| point.is_told);
        let told: Vec<_> = told.map(|point| (point.address, point.family)).collect();
        self.write_control(modules, &told, depth);
        let control = self.regions.shared.start.get().to_le_bytes();
        let mut headers = self.regions.codes.iter();
        let written = headers.try_for_each(|code| self.memory.write(code.start, &control));
        written.map_err(|_| Refusal::InjectionForbidden)
    }

    /// Fills the code region of the group `index`, but for its stubs.
    fn fill_code(
        &mut self,
        index: usize,
        code: Addr,
        points: &[Probepoint],
    ) -> Result<(), Refusal> {
        let text = leaktap_agent::text();
        let text_at = code.wrapping_offset(HEADER_LEN as i64);
        let written = self.memory.write(text_at, text);
        written.map_err(|_| Refusal::InjectionForbidden)?;
        let mut next = (HEADER_LEN + text.len() as u64).next_multiple_of(STUB_ROOM);
        for point in points {
            let stub = code.wrapping_offset(next as i64);
            if self.plan.is_in_group(index, point.address)
                && let Some(detour) = self.detour(point, stub)?
            {
                self.detours.push(detour);
                next += STUB_ROOM;
            }
        }
        Ok(())
    }

    /// A detour for `point`, with its stub at `stub`. Nothing for one that there is no place for:
    /// it stays a breakpoint.
    fn detour(&self, point: &Probepoint, stub: Addr) -> Result<Option<Detour>, Refusal> {
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
            family: point.family,
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
        for code in &self.regions.codes {
            self.insert_rows_of(code, rules);
        }
    }

    fn insert_rows_of(&self, code: &Range<Addr>, rules: &mut Table) {
        let start = code.start;
        let (at, bytes) = leaktap_agent::eh_frame();
        let mut own = leaktap_unwind::rows(&CfiSections {
            base: Svma(0),
            eh_frame: Some((at, bytes)),
            ..CfiSections::default()
        });
        let here = |detour: &&Detour| code.contains(&detour.stub);
        for detour in self.detours.iter().filter(here) {
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
        rules.insert(code.clone(), start, Box::new(move || own));
    }

    /// Writes the stubs. A function with no twin to be called in its place stays a breakpoint.
    fn write_stubs(&mut self) -> Result<(), Refusal> {
        let stubs: Vec<_> = self
            .detours
            .iter()
            .map(|detour| self.stub(detour))
            .collect();
        for stub in stubs.iter().flatten() {
            let (at, code) = stub;
            let written = self.memory.write(*at, code);
            written.map_err(|_| Refusal::InjectionForbidden)?;
        }
        let mut stubs = stubs.iter();
        self.detours
            .retain(|_| stubs.next().is_some_and(Option::is_some));
        Ok(())
    }

    /// The code of a detour's stub, and where it belongs.
    fn stub(&self, detour: &Detour) -> Option<(Addr, [u8; STUB_LEN])> {
        let code = self.regions.code_of(detour.stub)?;
        let is_its = |other: &&Detour| other.family == detour.family;
        let mut twins = self.detours.iter().filter(|other| other.known.name == TWIN);
        let twin = twins.find(is_its).map(|twin| twin.moved_at);
        let (action, called) = called(detour, twin)?;
        let descriptor = Descriptor {
            original: detour.moved_at.get(),
            call: called.get(),
            action,
            kind: kind(detour.function.0, detour.family),
            family: detour.family,
        };
        let stub = leaktap_agent::stub(detour.stub, code.start, detour.shape, &descriptor);
        Some((detour.stub, stub))
    }

    /// `told` are functions that a user has told of: breakpoints.
    fn write_control(&self, modules: &Modules, told: &[(Addr, FamilyId)], depth: usize) {
        let base = self.regions.shared.start.get();
        let put = |offset: usize, bytes: &[u8]| self.shared.write(offset as u64, bytes);
        let put_u64 = |offset, value: u64| put(offset, &value.to_le_bytes());
        let put_u32 = |offset, value: u32| put(offset, &value.to_le_bytes());
        let put_region = |offset: usize, range: &Range<Addr>| {
            put_u64(offset + offset_of!(Region, start), range.start.get());
            put_u64(offset + offset_of!(Region, end), range.end.get());
        };
        put_u64(offset_of!(Control, ledger), base + LEDGER_AT);
        put_u64(offset_of!(Control, keys), base + KEYS_AT);
        put_u64(offset_of!(Control, sums), base + SUMS_AT);
        put_u64(offset_of!(Control, threads), base + THREADS_AT);
        put_u64(offset_of!(Control, mappings), base + MAPPINGS_AT);
        let current_break = modules.break_at().unwrap_or_default();
        put_u64(offset_of!(Control, current_break), current_break.get());
        put_u32(offset_of!(Control, key_bits), KEY_BITS);
        put_u32(offset_of!(Control, tables), TABLES);
        let process = self.memory.process().in_its_namespace();
        put_u32(offset_of!(Control, process), process as u32);
        put_u32(offset_of!(Control, depth), depth as u32);
        put_u32(
            offset_of!(Control, region_count),
            self.regions.codes.len() as u32,
        );
        for (index, range) in self.regions.codes.iter().take(REGIONS).enumerate() {
            let offset = offset_of!(Control, regions) + index * size_of::<Region>();
            put_region(offset, range);
        }
        for (family, code) in modules.allocators() {
            let offset = family.number() * size_of::<Region>();
            put_region(offset_of!(Control, allocators) + offset, code);
        }
        for (index, range) in modules.system().iter().take(SYSTEM).enumerate() {
            let offset = offset_of!(Control, system) + index * size_of::<Region>();
            put_region(offset, range);
        }
        let detours = self.detours.iter();
        let functions = detours.map(|detour| (detour.site.at(), detour.family));
        let functions = functions.chain(told.iter().copied());
        let inside = modules.inside(functions).into_iter();
        for (index, (range, families)) in inside.take(INSIDE).enumerate() {
            let offset = offset_of!(Control, inside) + index * size_of::<Region>();
            put_region(offset, &range);
            let offset = offset_of!(Control, inside_of) + index * size_of::<u32>();
            put_u32(offset, families);
        }
        let free = !self.memory.process().has_filtered_thread();
        self.allow_system_calls(free);
    }
}

/// CFA = rsp + `offset`, rbp unchanged: with 8, as at the first instruction of every function.
fn entered(offset: i32) -> Rule {
    Rule::pack(Step::Call {
        cfa: Cfa::Sp(offset),
        bp: SavedBp::Unchanged,
    })
}

/// What a call does, and what is called: the function, or its `twin`. Nothing if it has to have one
/// and has none.
fn called(detour: &Detour, twin: Option<Addr>) -> Option<(Action, Addr)> {
    let action = detour.known.action;
    Some(match detour.shape {
        Shape::AroundThrowing | Shape::FullAroundThrowing => (action.by_twin(), twin?),
        _ => (action, detour.moved_at),
    })
}
