//! Function names and source lines.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use leaktap_image::ElfFile;
use leaktap_memory::Svma;

use crate::demangle;
use crate::lines::Lines;

/// One function at an address, inlined or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Name {
    /// The function, demangled.
    pub function: Option<String>,
    /// Its name as a linker has it, where that is mangled.
    pub symbol: Option<String>,
    /// The source file, as the compiler recorded it.
    pub file: Option<String>,
    /// The line in it, from 1.
    pub line: Option<u32>,
    /// The function was inlined into the next one.
    pub inlined: bool,
}

/// Names addresses by DWARF where there is some (in the file, or in a separate debug file for it),
/// by symbols otherwise. A file's debug information is read when it is first asked for, and kept.
#[derive(Debug, Default)]
pub struct Resolver {
    /// By the file's address in our memory, which [`Known`] keeps from being reused.
    files: HashMap<usize, Known>,
    /// What other threads read, in the same way.
    ahead: HashMap<usize, Ahead>,
}

/// A file that another thread reads.
#[derive(Debug)]
struct Ahead {
    file: Arc<ElfFile>,
    thread: JoinHandle<Known>,
}

#[derive(Debug)]
struct Known {
    file: Arc<ElfFile>,
    /// Files with symbols, the fullest first: a separate debug file has those that a stripped file
    /// lacks.
    symbols: Vec<Arc<ElfFile>>,
    lines: Option<Lines>,
}

impl Resolver {
    /// One that knows no file yet.
    pub fn new() -> Resolver {
        Resolver::default()
    }

    /// Has another thread read the debug information of `file`, before anybody asks for a name.
    pub fn read_ahead(&mut self, file: &Arc<ElfFile>) {
        let address = Arc::as_ptr(file).addr();
        if self.files.contains_key(&address) || self.ahead.contains_key(&address) {
            return;
        }
        let (file, own) = (Arc::clone(file), Arc::clone(file));
        // Without a thread to spare it is read when it is needed.
        let read = || {
            let known = Known::new(own);
            if known.lines.is_none() {
                // The symbols are sorted at the first look-up.
                symbol(&known.symbols, Svma(0));
            }
            known
        };
        if let Ok(thread) = thread::Builder::new().spawn(read) {
            self.ahead.insert(address, Ahead { file, thread });
        }
    }

    /// Forgets the files that `is_used` is false of.
    pub fn retain(&mut self, is_used: impl Fn(&Arc<ElfFile>) -> bool) {
        self.files.retain(|_, known| is_used(&known.file));
        self.ahead.retain(|_, ahead| is_used(&ahead.file));
    }

    /// The functions at `at`, innermost first: those inlined there, then the one they are part
    /// of. At least one entry, which may say nothing. For a return address pass the one before it
    /// (what an unwinder looks up): the line is that of the call then.
    pub fn names(&mut self, file: &Arc<ElfFile>, at: Svma) -> Vec<Name> {
        let address = Arc::as_ptr(file).addr();
        let known = self.files.entry(address).or_insert_with(|| {
            let ahead = self.ahead.remove(&address);
            let read = ahead.and_then(|ahead| ahead.thread.join().ok());
            read.unwrap_or_else(|| Known::new(Arc::clone(file)))
        });
        let files = &known.symbols;
        let lines = known.lines.as_mut();
        let names = lines.map(|lines| lines.names(at, || symbol(files, at)));
        let mut names = names.unwrap_or_default();
        if names.is_empty() {
            names.push(Name::default());
        }
        if let Some(outermost) = names.last_mut()
            && outermost.function.is_none()
            && let Some(symbol) = symbol(&known.symbols, at)
        {
            let demangled = demangle(&symbol);
            outermost.symbol = demangled.is_some().then(|| symbol.clone());
            outermost.function = Some(demangled.unwrap_or(symbol));
        }
        names
    }
}

impl Known {
    fn new(file: Arc<ElfFile>) -> Known {
        let own = Lines::of(&file, &file);
        let debug = match own {
            Some(_) => None,
            None => file.debug_file().map(Arc::new),
        };
        let separate = debug.as_ref().and_then(|debug| Lines::of(debug, &file));
        let embedded = match debug {
            Some(_) => None,
            None => file.embedded_symbols().map(Arc::new),
        };
        let symbols = [debug, embedded, Some(Arc::clone(&file))];
        Known {
            file,
            symbols: symbols.into_iter().flatten().collect(),
            lines: own.or(separate),
        }
    }
}

/// The symbol that covers `at`, of the first file that has one.
fn symbol(files: &[Arc<ElfFile>], at: Svma) -> Option<String> {
    Some(files.iter().find_map(|file| file.symbol_at(at))?.name)
}
