//! What is known of each module, found out once.

use std::collections::HashMap;
use std::sync::Arc;

use leaktap_image::{ElfFile, Image, Module};

/// By file and load bias. The file is held, so that no other one has its key.
#[derive(Debug)]
pub(super) struct ByModule<T>(HashMap<Key, (Arc<ElfFile>, T)>);

type Key = (usize, u64);

impl<T> Default for ByModule<T> {
    fn default() -> ByModule<T> {
        ByModule(HashMap::new())
    }
}

impl<T> ByModule<T> {
    /// Forgets modules that are gone. What is known of new ones, `find` says.
    pub(super) fn update(&mut self, image: &Image, mut find: impl FnMut(&Module) -> T) {
        let mut before = std::mem::take(&mut self.0);
        for module in image.modules() {
            let new = || (Arc::clone(module.file()), find(module));
            let known = before.remove(&key(module)).unwrap_or_else(new);
            self.0.insert(key(module), known);
        }
    }

    pub(super) fn get(&self, module: &Module) -> Option<&T> {
        self.0.get(&key(module)).map(|(_, known)| known)
    }

    pub(super) fn get_mut(&mut self, module: &Module) -> Option<&mut T> {
        self.0.get_mut(&key(module)).map(|(_, known)| known)
    }
}

fn key(module: &Module) -> Key {
    (Arc::as_ptr(module.file()).addr(), module.bias())
}
