//! What a target writes into the memory that it shares with the tracer.
//!
//! An input is a byte that says how many operations there are, the operations, of [`OPERATION`]
//! bytes each, and then what is overwritten, of [`WRITE`] bytes each. The operations make a ledger
//! as the agent would; what is overwritten are words of that, and words beside them.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering::Relaxed;

use leaktap_agent::mapping::Noted;
use leaktap_agent::queue::WORDS;
use leaktap_agent::{KEYS_AT, LEDGER_AT, MAPPINGS_AT, ROOM_AT, SHARED_LEN, Shared};
use leaktap_ledger::{Block, FamilyId, Kept, Key};
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::unistd::{Whence, lseek};

use crate::Random;

const OPERATION: usize = 4;
const WRITE: usize = 10;
const WORD: u64 = 8;

/// Most bytes that are moved at once when the memory is brought home.
const PIECE: u64 = 1 << 20;

/// The memory of a target, and a tracer's own, that it is brought home to.
struct Memories {
    file: File,
    shared: Shared,
    own: RefCell<Shared>,
}

thread_local! {
    static MEMORIES: Memories = Memories::new().expect("memory can be mapped");
}

pub(crate) fn parse(bytes: &[u8]) -> bool {
    MEMORIES.with(|memories| {
        let read = memories.execute(bytes);
        memories.clear();
        read.expect("a memfd can be read")
    })
}

impl Memories {
    fn new() -> io::Result<Memories> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let file = File::from(memfd_create("fuzz", flags)?);
        Ok(Memories {
            shared: Shared::in_file(file.try_clone()?)?,
            own: RefCell::new(Shared::private()?),
            file,
        })
    }

    fn execute(&self, bytes: &[u8]) -> io::Result<bool> {
        let (count, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let (operations, writes) = rest.split_at(rest.len().min(OPERATION * usize::from(*count)));
        operations
            .chunks_exact(OPERATION)
            .for_each(|it| self.operate(it));
        let words = self.words()?;
        for write in writes.chunks_exact(WRITE) {
            self.overwrite(&words, write)?;
        }
        Ok(self.read(bytes))
    }

    /// What an agent does: blocks come and go, by stacks that share frames.
    fn operate(&self, operation: &[u8]) {
        let [what, at, size, stack] = *operation else {
            return;
        };
        let ledger = self.shared.ledger();
        // Near each other: what is far apart is on pages of its own, and those take time.
        let addr = 0x5000_0000 + u64::from(at) * 0x90;
        if what % 4 == 0 {
            ledger.freed(what.into(), addr);
            return;
        }
        let frames: Vec<u64> = (0..u64::from(stack % 5)).map(|n| 0x40_0000 + n).collect();
        let kept = Kept {
            end: what % 2,
            kind: 1,
        };
        if let Some(stack) = ledger.intern(&frames, kept) {
            let (size, time) = (u64::from(size) << (what % 32), at.into());
            let block = Block {
                key: Key::new(FamilyId::new((what % 4).into()), addr),
                size,
                stack,
                time,
            };
            let _ = ledger.allocated(what.into(), &block);
        }
        self.shared.number((at % 2).into());
        let _ = self.shared.mappings().put([addr; WORDS]);
        self.shared.keys()[usize::from(at)].store(addr, Relaxed);
        self.shared
            .store(ROOM_AT, &[4, 0x1000, 0x2000, 0x3000, 0x4000]);
    }

    /// Offsets of all words that are not 0.
    fn words(&self) -> io::Result<Vec<u64>> {
        let mut words = Vec::new();
        let mut at = 0;
        while let Ok(start) = lseek(&self.file, at, Whence::SeekData) {
            at = lseek(&self.file, start, Whence::SeekHole)?;
            let mut piece = vec![0; (at - start) as usize];
            self.file.read_exact_at(&mut piece, start.cast_unsigned())?;
            let offsets = (start.cast_unsigned()..).step_by(WORD as usize);
            let is_used = |word: &[u8]| word.iter().any(|byte| *byte != 0);
            let used = piece.chunks_exact(WORD as usize).zip(offsets);
            words.extend(used.filter(|(word, _)| is_used(word)).map(|(_, at)| at));
        }
        Ok(words)
    }

    /// Writes to a word in use, or near one, or to one of the first.
    fn overwrite(&self, words: &[u64], write: &[u8]) -> io::Result<()> {
        let (which, value) = write.split_at(2);
        let which = usize::from(which[0]) | usize::from(which[1]) << 8;
        let (index, beside) = (which >> 2, which as u64 & 3);
        let near = words.get(index % words.len().max(1)).copied();
        let at = match near {
            Some(near) if beside < 3 => near + beside * WORD,
            _ => [0, KEYS_AT, MAPPINGS_AT, ROOM_AT, LEDGER_AT][index % 5],
        };
        self.file.write_all_at(value, at)
    }

    /// All that the tracer reads. True if there was something.
    fn read(&self, bytes: &[u8]) -> bool {
        let (shared, ledger) = (&self.shared, self.shared.ledger());
        let mut found = 0;
        for block in shared.blocks() {
            let mut frames = 0;
            let _ = ledger.stack(block.stack, |_| frames += 1);
            assert!(frames <= 1 << 10, "a stack has an end");
            let _ = ledger.near(block.key);
            found += 1;
        }
        let _ = (ledger.totals(FamilyId::FIRST), ledger.used());
        let _ = shared
            .told()
            .losses
            .each_ref()
            .map(|loss| loss.load(Relaxed));
        let keys = shared.keys().iter().enumerate();
        let used = keys.filter(|(_, key)| key.load(Relaxed) != 0);
        let outer = used.filter_map(|(index, _)| shared.outer(index));
        let _ = outer.map(|outer| outer.load(Relaxed)).max();
        let table = shared.table(ROOM_AT, 1 << 10).iter();
        let _ = table.map(|word| word.load(Relaxed)).max();
        let noted = (0..).map_while(|at| shared.mappings().take(at));
        let actions = noted.map(|words| Noted::from_words(words).action.bits());
        let _ = actions.max();
        shared.put_all_back(0);
        // What touches many pages takes its time.
        match bytes.len() % 256 {
            0..2 => self.bring_home(),
            2..4 => self.read_sums(),
            _ => {}
        }
        found > 0
    }

    fn read_sums(&self) {
        let (shared, ledger) = (&self.shared, self.shared.ledger());
        let _ = (ledger.totals(FamilyId::FIRST), ledger.used());
        let keys = shared.keys().iter().enumerate();
        let used = keys.filter(|(_, key)| key.load(Relaxed) != 0);
        let outer = used.filter_map(|(index, _)| shared.outer(index));
        let _ = outer.map(|outer| outer.load(Relaxed)).max();
    }

    fn bring_home(&self) {
        let (mut own, mut at) = (self.own.borrow_mut(), 0);
        while let Ok(Some(next)) = own.move_here(&self.shared, at, PIECE) {
            assert!(next > at, "it goes on");
            at = next;
        }
        assert!(own.blocks().count() <= 1 << 20);
    }

    /// As new.
    fn clear(&self) {
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let len = SHARED_LEN.cast_signed();
        fallocate(&self.file, hole, 0, len).expect("a memfd has holes");
    }
}

pub(crate) fn mutate(bytes: &mut Vec<u8>, random: &mut Random) {
    if bytes.len() < 1 + 8 * OPERATION {
        *bytes = vec![16];
        let operations = (0..16 * OPERATION).map(|_| random.word() as u8);
        bytes.extend(operations);
    }
    let writes_at = (1 + OPERATION * usize::from(bytes[0])).min(bytes.len());
    match random.below(8) {
        0..5 => {
            bytes.extend((random.word() as u16).to_le_bytes());
            bytes.extend(random.edge().to_le_bytes());
        }
        5 => random.damage(bytes, 1..writes_at),
        6 => bytes.truncate(writes_at),
        _ => {
            let len = bytes.len();
            random.damage(bytes, writes_at..len);
        }
    }
    bytes.truncate(2 << 10);
}
