use super::*;

fn is_near(found: f64, expected: f64, part: f64) -> bool {
    (found - expected).abs() <= expected.abs() * part
}

/// One-sided probabilities of Kendall's table (Gilbert, Statistical Methods for Environmental
/// Pollution Monitoring, 1987, table A18): twice as much is ours.
#[test]
fn few_points_are_as_in_the_published_tables() {
    for (length, sum, one_sided) in [
        (4, 4, 0.167),
        (4, 6, 0.042),
        (5, 6, 0.117),
        (5, 8, 0.042),
        (5, 10, 0.0083),
        (6, 7, 0.136),
        (6, 11, 0.028),
        (7, 9, 0.119),
        (7, 13, 0.035),
        (8, 12, 0.089),
        (8, 16, 0.031),
        (8, 22, 0.0028),
        (9, 10, 0.179),
        (9, 18, 0.038),
        (10, 11, 0.190),
        (10, 21, 0.036),
        (10, 25, 0.014),
    ] {
        let p = exact(sum, length, &vec![1; length]);
        let is_so = (p / 2.0 - one_sided).abs() < one_sided * 0.02 + 0.0005;
        assert!(is_so, "{length} {sum}: {p}");
        assert_eq!(p, exact(-sum, length, &vec![1; length]));
    }
}

/// Of all orders of the values, one by one.
#[test]
fn few_points_with_ties_are_counted() {
    for (values, expected) in [
        (vec![1.0, 2.0, 3.0, 4.0, 5.0], 2.0 / 120.0),
        (vec![1.0, 2.0, 2.0, 4.0, 5.0], 2.0 / 60.0),
        (vec![1.0, 1.0, 2.0, 3.0, 3.0, 4.0], 2.0 / 180.0),
        (vec![5.0, 4.0, 3.0, 2.0, 2.0, 1.0, 0.0], 2.0 / 2520.0),
        (vec![3.0, 1.0, 2.0, 5.0, 4.0], 58.0 / 120.0),
        (
            vec![1.0, 2.0, 2.0, 2.0, 3.0, 1.0, 4.0, 4.0],
            0.067_857_142_857_142_86,
        ),
        (vec![7.0; 6], 1.0),
    ] {
        let p = mann_kendall(&values);
        assert!(is_near(p, expected, 1e-12), "{values:?}: {p}");
    }
}

/// How much water the Nile had at Aswan, 1871 to 1970, in 10⁸ m³ (Cobb 1978; R's `Nile`).
const NILE: [u16; 100] = [
    1120, 1160, 963, 1210, 1160, 1160, 813, 1230, 1370, 1140, 995, 935, 1110, 994, 1020, 960, 1180,
    799, 958, 1140, 1100, 1210, 1150, 1250, 1260, 1220, 1030, 1100, 774, 840, 874, 694, 940, 833,
    701, 916, 692, 1020, 1050, 969, 831, 726, 456, 824, 702, 1120, 1100, 832, 764, 821, 768, 845,
    864, 862, 698, 845, 744, 796, 1040, 759, 781, 865, 845, 944, 984, 897, 822, 1010, 771, 676,
    649, 846, 812, 742, 801, 1040, 860, 874, 848, 890, 744, 749, 838, 1050, 918, 986, 797, 923,
    975, 815, 1020, 906, 901, 1170, 912, 746, 919, 718, 714, 740,
];

/// `original_test` of Python's pymannkendall: S -1387, a variance of 112728.33, z -4.128067, a
/// slope of -2.6.
#[test]
fn many_points_are_as_other_packages_say() {
    let nile = NILE.map(f64::from);
    assert_eq!(sum_of_signs(&nile), -1387);
    let p = mann_kendall(&nile);
    assert!(is_near(p, 3.658_262_921_657_5e-5, 1e-9), "{p}");
    let years: Vec<_> = (1871..).map(f64::from).zip(nile).collect();
    let found = trend(&years);
    let expected = Trend {
        p: 3.658e-5,
        per_second: -2.6,
    };
    assert_eq!(found, Some(expected));
    let tied = [1, 2, 2, 4, 3, 3, 5, 7, 6, 8, 8, 9].map(f64::from);
    let p = mann_kendall(&tied);
    assert!(is_near(p, 1.099_848_935_359_7e-4, 1e-9), "{p}");
    assert_eq!(mann_kendall(&[7.0; 12]), 1.0);
}

/// Values of erfc as in Abramowitz and Stegun, table 7.1, and beyond.
#[test]
fn the_error_function_is_exact() {
    for (x, expected) in [
        (0.0, 1.0),
        (0.5, 0.479_500_122_186_953),
        (1.0, 0.157_299_207_050_285),
        (2.0, 0.004_677_734_981_047_27),
        (2.5, 4.069_520_174_449_589e-4),
        (3.0, 2.209_049_699_858_544e-5),
        (5.0, 1.537_459_794_428_035e-12),
    ] {
        let found = complementary_error(x);
        assert!(is_near(found, expected, 1e-10), "{x}: {found}");
    }
    assert_eq!(complementary_error(40.0), 0.0);
}

#[test]
fn a_slope_minds_no_outlier() {
    // Sen's own idea, with times that are not the same distance apart.
    let points = [(0.0, 1.0), (1.0, 3.0), (2.0, 5.0), (4.0, 90.0), (5.0, 11.0)];
    assert_eq!(theil_sen(&points), Some(2.0));
    let pair = [(0.0, 0.0), (1.0, 2.0), (2.0, 8.0)];
    assert_eq!(theil_sen(&pair), Some(4.0));
    assert_eq!(theil_sen(&[(1.0, 0.0), (1.0, 5.0)]), None);
}

#[test]
fn nothing_is_said_of_few_points_or_too_many() {
    let points: Vec<_> = (0..2000).map(|n| (f64::from(n), f64::from(n))).collect();
    assert_eq!(trend(&points[..4]), None);
    assert_eq!(trend(&points), None);
    let five = trend(&points[..5]).unwrap();
    assert_eq!((five.p, five.per_second), (0.01667, 1.0));
}
