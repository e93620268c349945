//! The file of three words by which a target tells its progress and is told what to do:
//! `fixtures/campaign/campaign.h`.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a target can be told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    End = 1,
    Exec = 2,
    Threads = 3,
    Filter = 4,
}

const SIZE: usize = 4096;
const ORDER: u64 = 8;
const DISTURBED: u64 = 16;

/// The file, which the target has mapped.
pub(crate) struct Board(File);

impl Board {
    /// A new one.
    pub(crate) fn create(path: &Path) -> io::Result<Board> {
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        file.write_all_at(&[0; SIZE], 0)?;
        Ok(Board(file))
    }

    /// How far the target has come.
    pub(crate) fn progress(&self) -> u64 {
        let mut word = [0; 8];
        let read = self.0.read_exact_at(&mut word, 0);
        read.map_or(0, |()| u64::from_le_bytes(word))
    }

    pub(crate) fn order(&self, order: Order) {
        self.write(ORDER, order as u64);
    }

    /// Tells the target that its system calls may end early.
    pub(crate) fn disturb(&self) {
        self.write(DISTURBED, 1);
    }

    fn write(&self, at: u64, word: u64) {
        let _ = self.0.write_all_at(&word.to_le_bytes(), at); // a deaf target is found out
    }
}
