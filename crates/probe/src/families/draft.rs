//! A family while it is put together.

use std::collections::HashSet;

use leaktap_api::Functions;
use leaktap_image::Image;
use leaktap_memory::{Addr, ReadMemory};

use super::names::{self, Group};
use super::{Family, Member, User};

/// A family that is being put together.
pub(super) struct Draft {
    pub(super) module: usize,
    pub(super) group: Group,
    pub(super) user: User,
    pub(super) members: Vec<Member>,
}

impl Draft {
    pub(super) fn new(module: usize, group: Group, user: User) -> Draft {
        Draft {
            module,
            group,
            user,
            members: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, member: Member) {
        if !self.members.contains(&member) {
            self.members.push(member);
        }
    }

    /// Where a wrapper defines some names only, its callers get the others from elsewhere. What has
    /// another name that they do get from the wrapper (libc's `cfree` is its `free`) is not theirs.
    pub(super) fn add_others(
        &mut self,
        image: &Image,
        memory: &dyn ReadMemory,
        functions: &Functions,
    ) {
        let others: HashSet<usize> = self.members.iter().map(|member| member.module).collect();
        for module in others.into_iter().filter(|module| *module != self.module) {
            let here: Vec<Member> = functions
                .all()
                .filter(|(_, known)| known.is_of_heap() && !names::is_beside_malloc(&known.name))
                .flat_map(|(function, known)| {
                    let found = image.resolve_in(module, &known.name, memory).into_iter();
                    found.map(move |found| Member {
                        function,
                        module,
                        code: found.code,
                    })
                })
                .collect();
            let known = |member: &Member| {
                let mut members = self.members.iter();
                members.any(|known| known.function == member.function)
            };
            let passed_over: HashSet<Addr> = here
                .iter()
                .filter(|member| known(member) && !self.members.contains(member))
                .filter_map(|member| member.code.addr())
                .collect();
            let is_theirs = |member: &&Member| {
                let at = member.code.addr();
                !known(member) && !at.is_some_and(|at| passed_over.contains(&at))
            };
            let more: Vec<Member> = here.iter().filter(is_theirs).cloned().collect();
            self.members.extend(more);
        }
    }

    pub(super) fn allocates(&self, functions: &Functions) -> bool {
        let mut members = self.members.iter();
        members.any(|member| !functions.frees(member.function))
    }

    pub(super) fn family(self, image: &Image) -> Family {
        Family {
            id: None,
            name: names::of_family(image, self.module, self.group),
            module: self.module,
            functions: self.members,
            user: self.user,
        }
    }
}
