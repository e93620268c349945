use super::*;
use crate::formats::text::tests::report;
use crate::{Look, Report};

/// Looks at these times, at all of which so many blocks were live, or had been freed.
fn trace(duration: f64, mode: Mode, looks: &[(f64, u64, u64)], end: (u64, u64)) -> Trace {
    let mut report = Report {
        duration,
        mode,
        looks: looks.iter().copied().map(Look::from).collect(),
        ..report()
    };
    let heap = &mut report.totals.heap;
    (heap.live_blocks, heap.unmatched_frees) = end;
    Trace::of(&report)
}

fn evidence(ages: &[(f64, u64)], seen: Option<f64>, counts: &[u64]) -> Evidence {
    let ages = ages.iter().map(|&(age, blocks)| Age {
        age,
        blocks,
        bytes: blocks,
    });
    Evidence::of(&Site {
        ages: ages.collect(),
        seen,
        counts: counts.to_vec(),
        ..Site::default()
    })
}

fn told(growth: Option<Growth>) -> String {
    growth
        .and_then(|growth| growth.text)
        .unwrap_or_else(|| "-".to_owned())
}

/// In traces in which nobody has looked.
fn by_ages(ages: &[(f64, u64)], seen: Option<f64>, duration: f64, mode: Mode) -> String {
    let trace = trace(duration, mode, &[], (0, 0));
    told(evidence(ages, seen, &[]).growth(&trace))
}

fn quarters(blocks: [u64; 4]) -> Vec<(f64, u64)> {
    let ages = [55.0, 40.0, 25.0, 5.0].into_iter().zip(blocks);
    ages.filter(|(_, blocks)| *blocks > 0).collect()
}

#[test]
fn ages_say_what_they_prove() {
    use Mode::{Attach, Run};
    let young = vec![(12.0, 5), (1.0, 5)];
    let turns_over = "turns over: none older than 12 s of 60 s";
    let late = vec![(35.0, 8), (25.0, 8), (16.0, 8), (8.0, 8)];
    for (ages, seen, mode, expected) in [
        (
            quarters([21; 4]),
            None,
            Attach,
            "growing: 1.4/s in each quarter",
        ),
        (
            quarters([900, 10, 12, 14]),
            None,
            Run,
            "growing: 0.7 to 0.9/s in each quarter",
        ),
        (
            quarters([3; 4]),
            None,
            Run,
            "growing: 0.2/s in each quarter",
        ),
        (quarters([20, 10, 2, 0]), None, Run, "-"),
        (quarters([1, 3, 9, 27]), None, Run, "-"),
        (quarters([2; 4]), None, Run, "-"),
        // It may have begun late.
        (young.clone(), None, Run, "-"),
        (young.clone(), Some(50.0), Run, "-"),
        (young, Some(4.0), Run, turns_over),
        // It has.
        (late.clone(), Some(25.5), Run, "growing: 0.9/s since 25 s"),
        (late.clone(), Some(24.0), Run, "-"),
        (late, None, Run, "-"),
        (
            vec![(59.0, 5), (57.0, 5)],
            None,
            Attach,
            "stopped after 3.0 s",
        ),
        (
            vec![(59.9, 5), (59.8, 5)],
            None,
            Run,
            "start-up: none is of later than 0.2 s",
        ),
        (vec![], None, Run, "-"),
    ] {
        assert_eq!(by_ages(&ages, seen, 60.0, mode), expected, "{ages:?}");
    }
    let long = quarters([3; 4]).into_iter();
    let long: Vec<_> = long.map(|(age, blocks)| (age * 60.0, blocks)).collect();
    let found = by_ages(&long, None, 3600.0, Attach);
    assert_eq!(found, "growing: 0.2/min in each quarter");
    assert_eq!(by_ages(&[(0.5, 9)], None, 1.0, Run), "-");
}

/// Looks at the ends of quarters, more or less, of a trace of a minute, and one near its end.
const LOOKS: [(f64, u64, u64); 4] = [(16.0, 0, 0), (28.0, 0, 0), (44.0, 0, 0), (52.0, 0, 0)];

#[test]
fn numbers_tell_a_cache_from_a_leak() {
    let trace = trace(60.0, Mode::Run, &LOOKS, (0, 0));
    let full =
        |at, replaced| format!("full: as many as at {at} s, {replaced} of these are replaced");
    let growing = |rate| format!("growing: {rate}/s in each quarter");
    let nothing = || "-".to_owned();
    for (ages, counts, expected) in [
        // First in, first out, a third of the trace later; and at random.
        (quarters([1, 33, 33, 33]), [50, 100, 100, 100], full(28, 66)),
        (quarters([3, 9, 27, 61]), [50, 99, 100, 101], full(28, 87)),
        // Of a hundred requests at a time two a quarter are never done.
        (quarters([2, 2, 2, 100]), [101, 103, 104, 106], nothing()),
        // It was full late: enough has been replaced since, or too little.
        (quarters([0, 30, 35, 35]), [60, 90, 100, 100], full(44, 35)),
        (quarters([25, 30, 38, 12]), [50, 80, 100, 102], nothing()),
        (quarters([10; 4]), [10, 20, 30, 35], growing("0.6 to 0.8")),
        // Some requests are at work at each time.
        (
            quarters([10, 10, 10, 60]),
            [60, 70, 80, 85],
            growing("0.6 to 0.8"),
        ),
        // It grows by less than what is replaced.
        (
            quarters([10, 10, 10, 40]),
            [55, 60, 64, 68],
            growing("0.2 to 0.4"),
        ),
        // It has got smaller.
        (quarters([10; 4]), [60, 60, 50, 45], nothing()),
        // It grew once, and little was replaced since.
        (quarters([40, 40, 1, 1]), [40, 82, 82, 82], nothing()),
    ] {
        let found = evidence(&ages, Some(16.0), &counts).growth(&trace);
        assert_eq!(told(found), expected, "{ages:?} {counts:?}");
    }
}

#[test]
fn what_replaces_blocks_from_before_does_not_grow() {
    let looks = |freed: [u64; 4]| {
        let times = [8.0, 15.0, 30.0, 45.0].into_iter().zip(freed);
        times.map(|(at, freed)| (at, 110 * at as u64 / 15, freed))
    };
    let of = |freed: [u64; 4], end, sites: &[u64]| {
        let looks: Vec<_> = looks(freed).collect();
        let trace = trace(60.0, Mode::Attach, &looks, (440, end));
        let counts = |rate: u64| [rate / 2, rate, 2 * rate, 3 * rate];
        let sites = sites
            .iter()
            .map(|&rate| evidence(&quarters([rate; 4]), Some(8.0), &counts(rate)));
        let sites: Vec<_> = sites.collect();
        let growths = growths(sites.iter(), &trace);
        growths.into_iter().map(told).collect::<Vec<_>>()
    };
    let cache = "full: 6.7/s are new, and as many from before are freed";
    let (fast, slow) = (
        "growing: 6.7/s in each quarter",
        "growing: 0.7/s in each quarter",
    );
    let full = [50, 100, 200, 300];
    assert_eq!(of(full, 400, &[100, 10]), [cache, slow]);
    // Either may be it.
    assert_eq!(of(full, 400, &[100, 100]), [fast, fast]);
    assert_eq!(of([50, 60, 61, 61], 61, &[100, 10]), [fast, slow]);
    // All in all there are no more blocks than before.
    assert_eq!(of([55, 110, 220, 330], 440, &[50, 60]), ["-", "-"]);
}

/// A trend never says that something grows, and takes nothing from what is proven.
#[test]
fn a_trend_adds_its_figures_and_no_verdict() {
    let mut report = Report {
        duration: 60.0,
        series_at: vec![10.0, 20.0, 30.0, 40.0, 50.0, 60.0],
        ..report()
    };
    report.totals.heap.live_blocks = 84;
    let trace = Trace::of(&report);
    let rising: Vec<_> = (1..7).map(|n| Some(n * 100)).collect();
    let site = |ages: &[(f64, u64)], series: &[Option<u64>]| {
        let ages = ages.iter().map(|&(age, blocks)| Age {
            age,
            blocks,
            bytes: blocks,
        });
        Evidence::of(&Site {
            ages: ages.collect(),
            series: series.to_vec(),
            ..Site::default()
        })
    };
    let leak = quarters([21; 4]);
    let few = [(59.0, 1), (1.0, 1)];
    for (ages, series, expected) in [
        (&leak[..], &rising[..], Some((Some(Course::Growing), true))),
        (&few, &rising, Some((None, true))),
        (&few, &rising[..4], None),
        (&leak, &[], Some((Some(Course::Growing), false))),
    ] {
        let found = growths([site(ages, series)].iter(), &trace);
        let found = found[0].as_ref();
        let has_trend = |growth: &Growth| {
            let is_slope = growth.bytes_per_second == Some(10.0);
            growth.p == Some(0.002_778) && is_slope
        };
        let found = found.map(|growth| (growth.pattern, has_trend(growth)));
        assert_eq!(found, expected);
    }
}

/// Of a group the sum is known where that of all its sites is.
#[test]
fn series_of_a_group_are_summed_up() {
    let series = |series: &[Option<u64>]| Site {
        series: series.to_vec(),
        ..Site::default()
    };
    let of = |sites: &[&[Option<u64>]]| {
        let mut evidence = Evidence::default();
        sites.iter().for_each(|one| evidence.add(&series(one)));
        evidence.series()
    };
    let one = [Some(1), None, Some(3)];
    assert_eq!(of(&[&one]), one);
    let other = [Some(u64::MAX), Some(2), Some(2)];
    assert_eq!(of(&[&one, &other]), [Some(u64::MAX), None, Some(5)]);
    assert_eq!(of(&[&one, &[]]), []);
    assert_eq!(of(&[&[], &one]), []);
}
