//! What is known of each module, found out once.

use std::collections::HashMap;
use std::sync::Arc;

use leaktap_image::{Changes, ElfFile, Image, Key, Module};

/// By file and load bias. The file is held, so that no other one has its key.
#[derive(Debug)]
pub(super) struct ByModule<T>(HashMap<Key, (Arc<ElfFile>, T)>);

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
            let known = before.remove(&module.key()).unwrap_or_else(new);
            self.0.insert(module.key(), known);
        }
    }

    /// As [`ByModule::update`], where nothing has changed but `changes`.
    pub(super) fn follow(&mut self, changes: &Changes, mut find: impl FnMut(&Module) -> T) {
        for gone in &changes.removed {
            self.0.remove(&gone.key());
        }
        for added in &changes.added {
            let known = (Arc::clone(added.file()), find(added));
            self.0.insert(added.key(), known);
        }
    }

    pub(super) fn get(&self, module: &Module) -> Option<&T> {
        self.0.get(&module.key()).map(|(_, known)| known)
    }

    pub(super) fn get_mut(&mut self, module: &Module) -> Option<&mut T> {
        self.0.get_mut(&module.key()).map(|(_, known)| known)
    }
}
