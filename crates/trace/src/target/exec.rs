//! Programs that are replaced by others, and copies of the target.

use std::path::{Path, PathBuf};
use std::time::Duration;

use leaktap_agent::layout::FREE_STACKS;
use leaktap_tracee::{AllStopped, Memory, Stopped, Tracer};

use super::{Target, books, open};
use crate::books::live_blocks;
use crate::common::Common;
use crate::error::Error;
use crate::timeline::TimeLine;

/// Programs that were replaced by others, in the one process.
#[derive(Clone, Debug, Default)]
pub(super) struct Execs {
    times: u64,
    /// Blocks that ended with them.
    blocks: u64,
    /// The first one.
    program: PathBuf,
}

impl Execs {
    fn add(&mut self, program: &Path, blocks: u64) {
        if self.times == 0 {
            self.program = program.to_path_buf();
        }
        self.times += 1;
        self.blocks = self.blocks.saturating_add(blocks);
    }

    /// One line, however many there were.
    pub(super) fn note(&self) -> Option<String> {
        let (program, blocks) = (self.program.display(), self.blocks);
        match self.times {
            0 => None,
            1 => Some(format!(
                "{program} called exec: its {blocks} live blocks ended with its memory"
            )),
            times => Some(format!(
                "{program}, and what it became, called exec {times} times: their {blocks} live \
                 blocks ended with their memory"
            )),
        }
    }
}

impl Target {
    /// The process runs another program now, and `stopped` is its only thread.
    pub(crate) fn exec(&mut self, common: &mut Common, stopped: &mut Stopped) {
        if !self.is_replaced {
            self.replaced();
        }
        match self.reopen(common) {
            Ok(()) if self.is_to_be_injected() => self.inject(common, stopped),
            Ok(()) => {
                let stopped = AllStopped::only(stopped);
                self.await_link(&stopped);
                self.process.arm(&stopped);
                self.look_for_operators();
            }
            Err(error) => self
                .notes
                .push(format!("after exec: {error}; nothing was probed")),
        }
    }

    /// Reads the process afresh: it runs another program since it was read.
    pub(crate) fn reopen(&mut self, common: &mut Common) -> Result<(), Error> {
        self.process = open(self.tid(), &self.how, &mut common.files)?;
        self.is_replaced = false;
        common.only_those_of(self.process.modules());
        if self.guard.is_some() {
            self.guard();
        }
        self.describe();
        Ok(())
    }

    /// The memory of the process is gone, and all that was in it.
    pub(crate) fn replaced(&mut self) {
        self.is_replaced = true;
        self.process.gone(&mut self.books);
        let blocks = self.families().map(|family| self.books.totals(family));
        let blocks = blocks.map(|totals| live_blocks(&totals)).sum();
        match books() {
            Ok(books) => {
                let free_stacks = self.books.wants(FREE_STACKS);
                let drains = self.books.leaves_out_later();
                self.books = books;
                if drains {
                    self.books.leave_out_later();
                }
                self.looks_at_frees(free_stacks);
                self.sees_all();
                self.sampled = Duration::ZERO;
                self.timeline = TimeLine::new(self.how.interval);
            }
            Err(error) => self
                .notes
                .push(format!("after exec: {error}; nothing was counted")),
        }
        self.execs.add(&self.program.called, blocks);
    }

    /// Puts every byte back in the memory of a child of a fork, which is at its first stop.
    pub(crate) fn clean_copy(&mut self, tracer: &mut Tracer, stopped: &mut Stopped) {
        if let Ok(memory) = Memory::open(stopped.tid()) {
            let disarmed = self.process.disarm_copy(&memory, tracer, stopped);
            if disarmed.is_err() && stopped.tid().is_filtered() {
                self.note_filtered("a forked child");
            }
        }
    }
}
