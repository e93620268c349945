//! A report in less space.

use std::cmp::Reverse;

use crate::{FrameId, Report, Site};

/// Keeps only the frames that sites have, or had at the peak, those that most have first: small
/// numbers are short. The order of frames that as many have, as those of one call, stays.
pub(crate) fn compact(report: &mut Report) {
    let mut uses = vec![0u32; report.frames.len()];
    let of_sites = report.sites.iter().flat_map(Site::all_frames);
    for FrameId(id) in of_sites.chain(report.peak_frames()) {
        if let Some(uses) = uses.get_mut(id as usize) {
            *uses = uses.saturating_add(1);
        }
    }
    let mut order: Vec<_> = (0u32..).zip(&uses).filter(|(_, uses)| **uses > 0).collect();
    order.sort_by_key(|(_, uses)| Reverse(**uses));
    let mut numbers = vec![None; uses.len()];
    for (new, (old, _)) in (0..).zip(&order) {
        if let Some(number) = numbers.get_mut(*old as usize) {
            *number = Some(FrameId(new));
        }
    }
    let number = |FrameId(old): FrameId| numbers.get(old as usize).copied().flatten();
    for site in &mut report.sites {
        let alike = site.alike.iter_mut().map(|one| &mut one.frames);
        for stack in [&mut site.frames, &mut site.allocator]
            .into_iter()
            .chain(alike)
        {
            for frame in stack {
                *frame = number(*frame).unwrap_or(*frame);
            }
        }
        site.culprit = site.culprit.and_then(number);
    }
    for site in report.peak.iter_mut().flat_map(|peak| &mut peak.sites) {
        for frame in &mut site.frames {
            *frame = number(*frame).unwrap_or(*frame);
        }
    }
    let mut frames: Vec<_> = std::mem::take(&mut report.frames)
        .into_iter()
        .map(Some)
        .collect();
    let moved = order
        .iter()
        .filter_map(|(old, _)| frames.get_mut(*old as usize)?.take());
    report.frames = moved.collect();
}
