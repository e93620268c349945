//! Threads and processes that begin, and children that go their own way.

use leaktap_arch::system_calls::{CLONE, CLONE3};
use leaktap_memory::{Addr, ReadMemory};
use leaktap_tracee::{AllStopped, Died, Memory, Registers, Stopped, Tid};

use super::{Child, Tracing};
use crate::common::Newborn;

/// Flags of clone(2).
const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_SETTLS: u64 = 0x8_0000;

impl Tracing<'_> {
    pub(super) fn on_new(
        &mut self,
        mut stopped: Stopped,
        child: Tid,
        kind: Child,
    ) -> Result<(), Died> {
        let kind = self.kind(&stopped, child, kind)?;
        match kind {
            Child::Copy => self.traced.target.copy_begins(&stopped, child),
            Child::Thread | Child::SharesMemory => self.arm_unlinked(&mut stopped),
        }
        self.traced.target.inherits_mask(child, stopped.tid());
        if let Some(first_stop) = self.common.strays.remove(&child) {
            self.born(first_stop, kind);
        } else if !self.traced.tasks.contains_key(&child) && self.common.tracer.has(child) {
            self.traced.expected.insert(child, kind);
        }
        self.resume(stopped)
    }

    /// There will be another thread, which has not begun: what awaits the end of the linking is an
    /// int3 from now on, as all else is.
    fn arm_unlinked(&mut self, only: &mut Stopped) {
        if self.traced.target.process().is_linking() {
            self.traced.target.arm_unlinked(&AllStopped::only(only));
        }
    }

    /// What `child` is, which its parent announces in a stop named after the signal that tells of
    /// its end: clone(2) can make others than fork, vfork and a thread.
    pub(crate) fn kind(
        &mut self,
        parent: &Stopped,
        child: Tid,
        named: Child,
    ) -> Result<Child, Died> {
        let flags = clone_flags(&parent.registers()?, self.traced.target.process().memory());
        // The parent of a vfork(2) waits for its child.
        let fs_shared = |flags: u64| flags & (CLONE_VM | CLONE_VFORK | CLONE_SETTLS) == CLONE_VM;
        if flags.is_some_and(fs_shared) {
            self.traced.fs_shared.insert(child);
        }
        Ok(match flags {
            Some(_) if named == Child::Thread && self.is_beside(child, parent.tid()) => {
                Child::Thread
            }
            Some(flags) if flags & CLONE_VM != 0 => Child::SharesMemory,
            Some(_) => Child::Copy,
            None => named,
        })
    }

    /// Whether `child` is a thread of the process of `parent`.
    fn is_beside(&self, child: Tid, parent: Tid) -> bool {
        match self.is_child(parent) {
            false => child.is_of(self.traced.target.tid()),
            true => parent.process().is_some_and(|process| child.is_of(process)),
        }
    }

    /// A new thread or process at its first stop, before it has run.
    pub(super) fn born(&mut self, stopped: Stopped, child: Child) {
        let tid = stopped.tid();
        if child == Child::Copy {
            return self.copy_leaves(stopped);
        }
        self.add(tid, child == Child::SharesMemory);
        self.begins(&stopped);
        if self.traced.fs_shared.remove(&tid) {
            self.traced.target.share_fs_base(tid);
        }
        self.on_stop(stopped);
    }

    /// A child of a fork, at its first stop, is a process of its own, with every byte as the files
    /// have it.
    pub(crate) fn copy_leaves(&mut self, mut stopped: Stopped) {
        let tracer = &mut self.common.tracer;
        self.traced.target.clean_copy(tracer, &mut stopped);
        self.is_on_its_own(stopped, true);
    }

    /// A child has executed another program, and so left the target's memory.
    pub(crate) fn child_leaves(&mut self, stopped: Stopped) {
        self.traced.tasks.remove(&stopped.tid());
        self.traced.target.thread_gone(stopped.tid());
        self.is_on_its_own(stopped, false);
    }

    /// A child is traced by itself, or not any longer.
    fn is_on_its_own(&mut self, stopped: Stopped, is_copy: bool) {
        let target = &mut self.traced.target;
        let copied = is_copy.then_some(target.program.called.as_path());
        target.children.add(stopped.tid(), copied);
        if self.common.follows {
            self.common.newborn.push(Newborn {
                stopped,
                parent: target.tid(),
                is_copy,
            });
        } else {
            let _ = stopped.detach(); // fails if it has been killed: nothing to let go
        }
    }

    /// A new thread is at its first stop.
    pub(crate) fn begins(&mut self, stopped: &Stopped) {
        let _ = self.common.tracer.is_born(stopped); // fails if it has been killed
        self.traced.target.thread_begins(stopped);
    }
}

/// The flags of the clone(2) or clone3(2) that the thread of `registers` is in.
fn clone_flags(registers: &Registers, memory: &Memory) -> Option<u64> {
    match registers.system_call()?.cast_signed() {
        CLONE => Some(registers.argument(0)),
        CLONE3 => memory.read_u64(Addr::new(registers.argument(0))).ok(),
        _ => None,
    }
}
