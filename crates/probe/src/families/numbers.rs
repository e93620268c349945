//! Numbers of families: blocks are known by them, so each keeps its own to the end of the trace.

use std::path::PathBuf;

use leaktap_image::Image;
use leaktap_ledger::FamilyId;
use leaktap_memory::Addr;

use super::{Family, User};

/// What has a number. That of a family whose module is gone is not given to another one: blocks of
/// it may be left.
#[derive(Debug, Default)]
pub(super) struct Numbers(Vec<Numbered>);

#[derive(Debug, PartialEq, Eq)]
struct Numbered {
    name: String,
    module: PathBuf,
    at: Addr,
}

impl Numbers {
    /// The number of `family`, perhaps a new one; none if there are no more.
    pub(super) fn of(&mut self, family: &Family, image: &Image) -> Option<FamilyId> {
        let module = image.modules().get(family.module)?;
        let it = match family.user {
            // It may be in several modules, which come and go.
            User::Told => Numbered {
                name: family.name.clone(),
                module: PathBuf::new(),
                at: Addr::default(),
            },
            _ => Numbered {
                name: family.name.clone(),
                module: module.path().to_owned(),
                at: module.range().start,
            },
        };
        let known = self.0.iter().position(|known| *known == it);
        let index = known.unwrap_or(self.0.len());
        if index >= FamilyId::MOST {
            return None;
        }
        if known.is_none() {
            self.0.push(it);
        }
        Some(FamilyId::new(index))
    }

    /// What the family of a number is called.
    pub(super) fn name(&self, id: FamilyId) -> Option<&str> {
        Some(&self.0.get(id.number())?.name)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}
