//! What the runtimes of languages keep for good: no leak of the program's.
//!
//! A fixed list of functions and callers. Each may keep as many blocks as it does in a program that
//! leaks nothing; should there be more, the younger ones are not excused.

mod kept;

use self::kept::{KEPT, Kept, MOST_OF_LOADER};
use crate::names::last_part;
use crate::{FrameId, Heap, Kind, Place, Report, Site, Source, Tables};

/// Finds out which of `sites`, whose frames are in `tables`, are runtimes' own.
fn mark(sites: &mut [Site], tables: Tables<'_>) {
    let ids = (0..).map(FrameId).take(tables.frames.len());
    let names: Vec<_> = ids.map(|id| tables.place(id).map_or("", name)).collect();
    let is_listed = |name: &&str| KEPT.iter().any(|kept| any_fits(kept.functions, name));
    let listed: Vec<bool> = names.iter().map(is_listed).collect();
    let limits = KEPT.iter().map(|kept| kept.most);
    let mut left: Vec<u64> = limits.chain([MOST_OF_LOADER]).collect();
    // What is lost is no longer kept.
    let is_open = |site: &&mut Site| !matches!(site.kind, Kind::Definite | Kind::Indirect);
    let mut sites: Vec<_> = sites.iter_mut().filter(is_open).collect();
    sites.sort_by(|a, b| b.oldest.total_cmp(&a.oldest));
    for site in sites {
        let stack: Vec<_> = site.whole_stack().map(|FrameId(id)| id as usize).collect();
        let of_loader = || is_loaders(&site.frames, tables).then_some(KEPT.len());
        let keeper = keeper(&stack, &names, &listed).or_else(of_loader);
        if let Some(left) = keeper.and_then(|at| left.get_mut(at))
            && *left >= site.blocks
        {
            *left -= site.blocks;
            site.kind = Kind::Runtime;
        }
    }
}

/// The dynamic linker itself has called for it: not a library's initialisation, which runs inside
/// of dlopen(3), too.
fn is_loaders(frames: &[FrameId], tables: Tables<'_>) -> bool {
    let first = frames.first().and_then(|first| tables.place(*first));
    first.is_some_and(|place| {
        let module = place.module.map(|module| last_part(&module.path));
        // The C library's part of dlopen(3) and dlsym(3), which notes what dlerror(3) will say.
        let tells = place.frame.function.as_deref() == Some("_dlerror_run");
        tells || module.is_some_and(|module| module.starts_with("ld-linux"))
    })
}

/// Which of [`KEPT`] a stack is of, if any. `listed` are frames of functions that are in there.
fn keeper(stack: &[usize], names: &[&str], listed: &[bool]) -> Option<usize> {
    let name = |id: &usize| names.get(*id).copied().unwrap_or_default();
    let is_listed = |id: &usize| listed.get(*id).copied().unwrap_or_default();
    let known = (0..).zip(stack).filter(|(_, id)| is_listed(id));
    let mut keepers = known.filter_map(|(at, id): (usize, _)| {
        let function = name(id);
        let callers = stack.get(at..)?.iter().map(name);
        let caller = callers.into_iter().find(|caller| *caller != function)?;
        let has =
            |kept: &Kept| any_fits(kept.functions, function) && any_fits(kept.callers, caller);
        KEPT.iter().position(has)
    });
    keepers.next()
}

/// The function's name, as a library without debug information has it, too. Where there is none,
/// that of its library, without a version.
fn name<'a>(place: Place<'a>) -> &'a str {
    match (&place.frame.function, place.module) {
        (Some(function), _) => function.strip_prefix("__GI_").unwrap_or(function),
        (None, Some(module)) => {
            let file = last_part(&module.path);
            let end = file.find(".so").map_or(file.len(), |at| at + ".so".len());
            file.get(..end).unwrap_or(file)
        }
        (None, None) => "",
    }
}

fn any_fits(patterns: &[&str], name: &str) -> bool {
    patterns
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => *pattern == name,
        })
}

impl Report {
    /// Whether somebody has looked what leads to its blocks.
    pub fn is_graded(&self) -> bool {
        self.sites.iter().any(|site| site.kind.is_graded())
    }

    /// Finds out which sites are runtimes' own, by the names that frames have now.
    pub fn mark_runtime(&mut self) {
        // What is no runtime's after all could be reached, where that was looked at.
        let before = match self.is_graded() {
            true => Kind::Reachable,
            false => Kind::Unmatched,
        };
        let mut sites = std::mem::take(&mut self.sites);
        let kept = |site: &&mut Site| site.kind == Kind::Runtime;
        for site in sites.iter_mut().filter(kept) {
            site.kind = before;
        }
        mark(&mut sites, self.tables());
        self.sites = sites;
        let kept = || self.sites.iter().filter(|site| site.kind == Kind::Runtime);
        let sum = |of: fn(&Site) -> u64| Some(kept().map(of).fold(0, u64::saturating_add));
        let (blocks, bytes) = (sum(|site| site.blocks), sum(|site| site.bytes));
        (self.totals.runtime_blocks, self.totals.runtime_bytes) = (blocks, bytes);
    }

    /// Without what runtimes keep: neither sites nor sums have it, but those of `runtime`
    /// themselves.
    #[must_use]
    pub fn without_runtime(mut self) -> Report {
        let sites = std::mem::take(&mut self.sites).into_iter();
        let (kept, sites) = sites.partition(|site| site.kind == Kind::Runtime);
        self.sites = sites;
        self.forget(&kept);
        self
    }

    /// Takes what it says to be suppressed already, as a JSON report may, from what is left in all.
    pub(crate) fn forget_suppressed(&mut self) {
        let totals = &mut self.totals;
        let heap = &mut totals.heap;
        heap.live_blocks = heap.live_blocks.saturating_sub(totals.suppressed_blocks);
        heap.live_bytes = heap.live_bytes.saturating_sub(totals.suppressed_bytes);
    }

    /// Takes `sites`, which it does not list, from what is left in all.
    pub fn forget(&mut self, sites: &[Site]) {
        for site in sites {
            let totals = &mut self.totals;
            if site.source == Source::Mapping {
                totals.mapped_regions = totals.mapped_regions.saturating_sub(site.blocks);
                totals.mapped_bytes = totals.mapped_bytes.saturating_sub(site.bytes);
                continue;
            }
            let mut families = self.families.iter_mut();
            let family = families.find(|family| Some(&family.name) == site.family.as_ref());
            let without = |heap: Heap| Heap {
                live_blocks: heap.live_blocks.saturating_sub(site.blocks),
                live_bytes: heap.live_bytes.saturating_sub(site.bytes),
                ..heap
            };
            // The totals are those of one of the families.
            if family
                .as_ref()
                .is_none_or(|family| family.heap == totals.heap)
            {
                totals.heap = without(totals.heap);
            }
            if let Some(family) = family {
                family.heap = without(family.heap);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::formats::text::tests::{add, frame, report};
    use crate::{Frame, Module, ModuleId};

    /// The kinds of sites with these stacks, of so many blocks each, the oldest first.
    fn kinds(stacks: &[(&[&str], u64)]) -> Vec<Kind> {
        let mut report = report();
        for (age, (names, blocks)) in (0..).zip(stacks) {
            let frames: Vec<_> = names.iter().map(|name| frame(name, "x", 1)).collect();
            add(
                &mut report,
                &frames,
                &[(100.0 - f64::from(age), *blocks, 10)],
            );
        }
        report.mark_runtime();
        report.sites.iter().map(|site| site.kind).collect()
    }

    /// As many tables as there is debug information. What is kept of a backtrace is the program's.
    #[test]
    fn tables_for_backtraces_are_kept_and_backtraces_are_not() {
        let of = |name: &'static str| {
            let all = "std::backtrace_rs::symbolize::gimli::Cache::with_global";
            let stack = ["gimli::push", name, all, "main"];
            kinds(&[(&stack, 50_000)])
        };
        for name in [
            "<std::backtrace_rs::symbolize::gimli::Context>::new",
            "std::backtrace_rs::symbolize::gimli::Mapping::new_debug::{{closure}}",
        ] {
            assert_eq!(of(name), [Kind::Runtime], "{name}");
        }
        let kept = "std::backtrace::Capture::resolve::{{closure}}";
        assert_eq!(of(kept), [Kind::Unmatched]);
    }

    #[test]
    fn three_standard_streams_have_buffers_and_no_more() {
        let buffer: (&[&str], u64) = (&["__GI__IO_file_doallocate", "_IO_doallocbuf", "main"], 1);
        let found = kinds(&[buffer, buffer, buffer, buffer]);
        assert_eq!(&found[..3], [Kind::Runtime; 3]);
        assert_eq!(found[3], Kind::Unmatched);
        let many = kinds(&[(buffer.0, 4)]);
        assert_eq!(many, [Kind::Unmatched]);
    }

    #[test]
    fn a_callers_name_decides_too() {
        let found = kinds(&[
            (
                &[
                    "std::sys::pal::unix::stack_overflow::imp::init",
                    "std::rt::init",
                ],
                1,
            ),
            (
                &["std::sys::pal::unix::stack_overflow::imp::init", "worker"],
                1,
            ),
            (&["strdup", "main"], 1),
            (&["fopen", "_IO_doallocbuf", "main"], 1),
        ]);
        let unmatched = Kind::Unmatched;
        assert_eq!(found, [Kind::Runtime, unmatched, unmatched, unmatched]);
    }

    #[test]
    fn a_locale_is_kept_and_a_string_is_not() {
        let found = kinds(&[
            (&["__GI___strdup", "__GI_setlocale", "main"], 12),
            (
                &[
                    "_nl_make_l10nflist",
                    "_nl_find_locale",
                    "__GI_setlocale",
                    "main",
                ],
                48,
            ),
            (&["set_binding_values", "__bindtextdomain", "main"], 1),
            (
                &["__GI___strdup", "__textdomain", "__textdomain", "main"],
                1,
            ),
            (&["_nl_find_locale", "newlocale", "main"], 1),
            (&["set_binding_values", "__bindtextdomain", "main"], 15),
        ]);
        let unmatched = Kind::Unmatched;
        assert_eq!(found[..4], [Kind::Runtime; 4]);
        assert_eq!(found[4..], [unmatched; 2]);
    }

    /// dlopen(3) keeps a library's names and places, and runs its constructors, which keep theirs.
    #[test]
    fn what_a_constructor_allocates_is_not_the_linkers() {
        let mut report = report();
        let program = report.modules[0].clone();
        let linker = Module {
            path: "/lib64/ld-linux-x86-64.so.2".to_owned(),
            ..program.clone()
        };
        report.modules = vec![program, linker];
        let of = |module, name: &str| Frame {
            module: Some(ModuleId(module)),
            function: Some(name.to_owned()),
            ..Frame::default()
        };
        let opened = [of(1, "_dl_open"), of(0, "_dlerror_run"), of(0, "main")];
        let bookkeeping = [&[of(1, "_dl_new_object")], &opened[..]].concat();
        let constructor = [&[of(0, "library_init"), of(1, "call_init")], &opened[..]].concat();
        add(&mut report, &bookkeeping, &[(2.0, 1, 64)]);
        add(&mut report, &constructor, &[(1.0, 1, 64)]);
        report.mark_runtime();
        let kinds: Vec<_> = report.sites.iter().map(|site| site.kind).collect();
        assert_eq!(kinds, [Kind::Runtime, Kind::Unmatched]);
    }

    #[test]
    fn a_library_without_symbols_stands_for_its_functions() {
        let mut report = report();
        let module = |path: &str| Module {
            path: path.to_owned(),
            ..report.modules[0].clone()
        };
        let paths = [
            "/usr/lib/libstdc++.so.6.0.30",
            "/lib64/ld-linux-x86-64.so.2",
        ];
        report.modules = paths.map(module).to_vec();
        let frame = |module| Frame {
            module: Some(ModuleId(module)),
            ..Frame::default()
        };
        add(
            &mut report,
            &[frame(0), frame(0), frame(1)],
            &[(1.0, 1, 64)],
        );
        report.mark_runtime();
        assert_eq!(report.sites[0].kind, Kind::Runtime);
        assert_eq!(report.totals.runtime_bytes, Some(64));
        let (blocks, bytes) = (
            report.totals.heap.live_blocks,
            report.totals.heap.live_bytes,
        );
        let rest = report.without_runtime();
        assert!(rest.sites.is_empty());
        let heap = rest.totals.heap;
        assert_eq!(
            (heap.live_blocks + 1, heap.live_bytes + 64),
            (blocks, bytes)
        );
    }
}
