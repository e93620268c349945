//! Other names for the frames of a capture.

use std::collections::HashMap;

use crate::{Frame, FrameId, Hex, ModuleId, Report, caller_of_allocator};

impl Report {
    /// Asks `names` for the functions at an address of a module, as in its file: innermost first,
    /// of which only `function`, `file`, `line` and `inlined` count. They replace those that the
    /// report has, unless they say less.
    pub fn rename(&mut self, names: impl FnMut(ModuleId, u64) -> Vec<Frame>) {
        let mut sites = std::mem::take(&mut self.sites);
        let mut peak = self.peak.take();
        let mut renaming = Renaming {
            report: self,
            names,
            known: HashMap::new(),
        };
        for site in &mut sites {
            let old: Vec<_> = site.whole_stack().collect();
            let mut stack = renaming.stack(&old);
            let begin = caller_of_allocator(&renaming.report.tables().stack(&stack));
            site.frames = stack.split_off(begin);
            site.allocator = stack;
            site.culprit = None;
        }
        for site in peak.iter_mut().flat_map(|peak| &mut peak.sites) {
            let mut stack = renaming.stack(&site.frames);
            let begin = caller_of_allocator(&renaming.report.tables().stack(&stack));
            site.frames = stack.split_off(begin);
        }
        (self.sites, self.peak) = (sites, peak);
        self.mark_runtime();
    }
}

struct Renaming<'a, N> {
    report: &'a mut Report,
    names: N,
    /// By the frame of a call that is not inlined, what the call has become.
    known: HashMap<FrameId, Vec<FrameId>>,
}

impl<N: FnMut(ModuleId, u64) -> Vec<Frame>> Renaming<'_, N> {
    fn stack(&mut self, old: &[FrameId]) -> Vec<FrameId> {
        let calls = self.report.tables().calls(old);
        let calls: Vec<_> = calls.map(<[FrameId]>::to_vec).collect();
        calls.iter().flat_map(|call| self.call(call)).collect()
    }

    /// What the frames of one call become.
    fn call(&mut self, call: &[FrameId]) -> Vec<FrameId> {
        let Some(&outermost) = call.last() else {
            return Vec::new();
        };
        if let Some(known) = self.known.get(&outermost) {
            return known.clone();
        }
        let renamed = self.renamed(call, outermost);
        let renamed = renamed.map_or_else(|| call.to_vec(), |frames| self.add(frames));
        self.known.insert(outermost, renamed.clone());
        renamed
    }

    /// `None` where nothing better is known.
    fn renamed(&mut self, call: &[FrameId], outermost: FrameId) -> Option<Vec<Frame>> {
        let tables = self.report.tables();
        let place = tables.frame(outermost)?.clone();
        let (module, Hex(offset)) = (place.module?, place.offset?);
        let Hex(first) = tables.module(module)?.svma;
        // The call is before the address that it returns to.
        let back = u64::from(!place.interrupted);
        let at = first.wrapping_add(offset).wrapping_sub(back);
        let old = call.iter().filter_map(|&id| tables.frame(id));
        let old = knowledge(old);
        let names = (self.names)(module, at);
        (knowledge(&names) >= old && knowledge(&names) > NOTHING).then(|| {
            let named = names.into_iter().map(|name| Frame {
                function: name.function,
                symbol: name.symbol,
                file: name.file,
                line: name.line,
                inlined: name.inlined,
                own: None,
                ..place.clone()
            });
            named.collect()
        })
    }

    fn add(&mut self, frames: Vec<Frame>) -> Vec<FrameId> {
        let first = self.report.frames.len() as u32; // names of as many as there were
        self.report.frames.extend(frames);
        let end = self.report.frames.len() as u32;
        (first..end).map(FrameId).collect()
    }
}

const NOTHING: (bool, bool) = (false, false);

/// Whether any of them has a line, and whether any has a name.
fn knowledge<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> (bool, bool) {
    frames.into_iter().fold(NOTHING, |(line, function), frame| {
        (
            line || frame.line.is_some(),
            function || frame.function.is_some(),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use crate::formats::text::tests::{add, frame, report};

    /// `operator new` called by `f`, which was inlined into `main`; without lines.
    fn stripped() -> Report {
        let mut report = report();
        report.modules[0].svma = Hex(0x40_0000);
        let at = |offset, name: Option<&str>| Frame {
            offset: Some(Hex(offset)),
            function: name.map(str::to_owned),
            file: None,
            line: None,
            ..frame("", "", 0)
        };
        let frames = [at(0x10, None), at(0x20, Some("main"))];
        add(&mut report, &frames, &[(1.0, 1, 10)]);
        report
    }

    fn names(report: &Report) -> Vec<&str> {
        let places = report.tables().stack(&report.sites[0].frames);
        let frames = places.into_iter().map(|place| place.frame);
        let names = frames.map(|frame| frame.function.as_deref().unwrap_or("?"));
        names.collect()
    }

    #[test]
    fn better_names_replace_those_there_are() {
        let mut report = stripped();
        let mut asked = Vec::new();
        report.rename(|module, at| {
            asked.push((module, at));
            match at {
                0x40_000f => vec![frame("operator new(unsigned long)", "/new.cc", 3)],
                _ => vec![
                    Frame {
                        inlined: true,
                        ..frame("f", "/x.cc", 7)
                    },
                    frame("main", "/x.cc", 9),
                ],
            }
        });
        // Calls, not what they return to, at addresses of the file.
        assert_eq!(asked, [(ModuleId(0), 0x40_000f), (ModuleId(0), 0x40_001f)]);
        assert_eq!(names(&report), ["f", "main"]);
        assert_eq!(report.sites[0].allocator.len(), 1);
        // The same again, from what has become of it.
        report.rename(|_, _| Vec::new());
        assert_eq!(names(&report), ["f", "main"]);
        let inner = report.tables().frame(report.sites[0].frames[0]);
        assert_eq!(inner.map(|frame| frame.offset), Some(Some(Hex(0x20))));
    }

    /// What runtimes keep is known by names.
    #[test]
    fn what_is_a_runtimes_is_told_anew() {
        let mut report = stripped();
        report.rename(|_, at| {
            let name = match at {
                0x40_000f => "_IO_file_doallocate",
                _ => "_IO_doallocbuf",
            };
            vec![frame(name, "/x.c", 1)]
        });
        assert_eq!(report.sites[0].kind, Kind::Runtime);
        assert_eq!(report.totals.runtime_blocks, Some(1));
        report.rename(|_, _| vec![frame("main", "/x.c", 1)]);
        assert_eq!(report.sites[0].kind, Kind::Unmatched);
        assert_eq!(report.totals.runtime_blocks, Some(0));
    }

    #[test]
    fn names_that_say_less_do_not() {
        let mut report = stripped();
        report.rename(|_, _| vec![Frame::default()]);
        assert_eq!(names(&report), ["?", "main"]);
        report.rename(|_, at| match at {
            0x40_000f => vec![frame("g", "/x.c", 1)],
            _ => Vec::new(),
        });
        assert_eq!(names(&report), ["g", "main"]);
    }
}
