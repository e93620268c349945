//! Programs that count their progress on a board.

use std::path::Path;
use std::process::Command;

use nix::unistd::Pid;

use super::{PATIENCE, Running};
use crate::board::{Board, Order};
use crate::child::Child;
use crate::wait;

/// A program, and its board.
pub(crate) struct Counted {
    child: Child,
    board: Board,
}

impl Counted {
    /// Starts `command` with the board's path as its last argument.
    pub(crate) fn start(mut command: Command, folder: &Path) -> Result<Counted, String> {
        let path = folder.join("board");
        let board = Board::create(&path).map_err(|error| format!("the board: {error}"))?;
        let child = Child::start(command.arg(&path).current_dir(folder), folder, "target")?;
        Ok(Counted { child, board })
    }

    fn fails(&self, what: &str) -> String {
        format!("the target {what}; it said: {}", self.child.said())
    }
}

impl Running for Counted {
    fn pid(&self) -> Pid {
        self.child.pid()
    }

    fn progresses(&mut self) -> Result<(), String> {
        let begun = self.board.progress();
        wait::until(PATIENCE, || {
            self.board.progress() > begun + 1 || self.child.ended().is_some()
        });
        match self.child.ended() {
            Some(status) => Err(self.fails(&format!("has ended: {status}"))),
            None if self.board.progress() > begun + 1 => Ok(()),
            None => Err(self.fails("makes no progress")),
        }
    }

    fn ended(&mut self) -> Option<String> {
        self.child.ended().map(|status| status.to_string())
    }

    fn order(&mut self, order: Order) {
        self.board.order(order);
    }

    fn disturb(&mut self) {
        self.board.disturb();
    }

    fn finish(&mut self) -> Result<(), String> {
        self.board.order(Order::End);
        match self.child.await_end(PATIENCE) {
            Some(status) if status.success() && !self.child.out().contains("wrong") => Ok(()),
            Some(status) => Err(self.fails(&format!("has ended: {status}"))),
            None => Err(self.fails("does not end")),
        }
    }
}
