//! Whether figures rise in the course of time, and how fast.
//!
//! The test of Mann (1945) and Kendall (1975), two-sided, and the slope of Theil (1950) and Sen
//! (1968): neither minds a figure that is far off, nor a rise that is no straight line. Pure.

/// Fewest points of which anything is said: of four, even the steepest row is like chance.
const FEWEST: usize = 5;

/// Most points: a time line has fewer, and each is compared with each.
const MOST: usize = 1024;

/// With as many points or fewer, all orders of them are counted.
const MOST_EXACT: usize = 10;

/// Digits that are kept: what is beyond tells nobody anything.
const DIGITS: i32 = 4;

/// What points in time tell.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// How likely figures without a trend are to look like one by chance, in either direction.
    pub p: f64,
    /// The middle one of the slopes of all pairs.
    pub per_second: f64,
}

/// What these points, in order of their times, tell. `None` if they are fewer than five, or more
/// than a time line has.
pub fn trend(points: &[(f64, f64)]) -> Option<Trend> {
    let values: Vec<_> = points.iter().map(|(_, value)| *value).collect();
    let is_enough = (FEWEST..=MOST).contains(&points.len());
    let slope = is_enough.then(|| theil_sen(points)).flatten()?;
    Some(Trend {
        p: rounded(mann_kendall(&values)),
        per_second: rounded(slope),
    })
}

/// `value` with as many digits as count.
fn rounded(value: f64) -> f64 {
    let written = format!("{value:.*e}", DIGITS as usize - 1);
    written.parse().unwrap_or(value)
}

/// The probability that figures without a trend have a sum of signs as far from 0 as these.
fn mann_kendall(values: &[f64]) -> f64 {
    let sum = sum_of_signs(values);
    let ties = ties(values);
    match values.len() {
        0..=MOST_EXACT => exact(sum, values.len(), &ties),
        length => normal(sum, length, &ties),
    }
}

/// Of all pairs, those that rise less those that fall.
fn sum_of_signs(values: &[f64]) -> i64 {
    let mut sum = 0;
    for (number, one) in values.iter().enumerate() {
        for later in values.iter().skip(number + 1) {
            sum += match later.total_cmp(one) {
                std::cmp::Ordering::Less => -1,
                std::cmp::Ordering::Equal => 0,
                std::cmp::Ordering::Greater => 1,
            };
        }
    }
    sum
}

/// How many there are of each value.
fn ties(values: &[f64]) -> Vec<usize> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let groups = sorted.chunk_by(|a, b| a.total_cmp(b).is_eq());
    groups.map(<[f64]>::len).collect()
}

/// Counts all orders of the values by their inversions. There are as many of each number as the
/// coefficients of `[n]! / ([t]! [u]! ...)` say, where `[n]! = (1)(1 + q)(1 + q + q^2)...` and t,
/// u, ... are the numbers of equal values.
fn exact(sum: i64, length: usize, ties: &[usize]) -> f64 {
    let mut orders = vec![1.0];
    for factor in 2..=length {
        orders = times(&orders, factor);
    }
    for factor in ties.iter().flat_map(|equal| 2..=*equal) {
        orders = divided(&orders, factor);
    }
    let all: f64 = orders.iter().sum();
    // The first has none, and the last all pairs that are not equal.
    let pairs = orders.len() as i64 - 1;
    let as_far = (0..).zip(&orders).filter(|(inversions, _)| {
        let other: i64 = pairs - 2 * inversions;
        other.abs() >= sum.abs()
    });
    as_far.map(|(_, orders)| orders).sum::<f64>() / all
}

/// `polynomial` times `1 + q + q² + ...`, of `terms` terms.
fn times(polynomial: &[f64], terms: usize) -> Vec<f64> {
    let coefficient = |power: usize| {
        let from = (power + 1).saturating_sub(terms);
        let terms = polynomial.iter().skip(from).take(power + 1 - from);
        terms.sum()
    };
    (0..polynomial.len() + terms - 1).map(coefficient).collect()
}

/// What `polynomial` is such a product of.
fn divided(polynomial: &[f64], terms: usize) -> Vec<f64> {
    let mut quotient: Vec<f64> = Vec::new();
    for coefficient in polynomial.iter().take(polynomial.len() + 1 - terms) {
        let before: f64 = quotient.iter().rev().take(terms - 1).sum();
        quotient.push(coefficient - before);
    }
    quotient
}

/// As of a normal distribution, corrected for ties and for that sums are whole numbers.
fn normal(sum: i64, length: usize, ties: &[usize]) -> f64 {
    let part = |n: usize| {
        let n = n as f64;
        n * (n - 1.0) * (2.0 * n + 5.0) / 18.0
    };
    let equal: f64 = ties.iter().map(|equal| part(*equal)).sum();
    let variance = part(length) - equal;
    let distance = (sum.abs() - 1).max(0) as f64;
    match variance > 0.0 {
        true => complementary_error(distance / (2.0 * variance).sqrt()),
        false => 1.0, // all are equal
    }
}

/// erfc(x), for x of 0 or more.
fn complementary_error(x: f64) -> f64 {
    const ROUNDS: u32 = 80;
    let root = std::f64::consts::PI.sqrt();
    let bell = (-x * x).exp();
    if x < 2.5 {
        // erf(x) = 2/√π e^(-x²) Σ 2ⁿ x^(2n+1) / (1·3·5···(2n+1))
        let (mut term, mut sum) = (x, x);
        for n in 1..=ROUNDS {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        return 1.0 - 2.0 / root * bell * sum;
    }
    // erfc(x) = e^(-x²)/√π · 1/(x + (1/2)/(x + (2/2)/(x + (3/2)/(x + ...))))
    let rest = (1..=ROUNDS).rev().map(f64::from);
    let fraction = rest.fold(x, |rest, n| x + n / 2.0 / rest);
    bell / root / fraction
}

/// The middle one of all slopes. `None` if all are of one time.
fn theil_sen(points: &[(f64, f64)]) -> Option<f64> {
    let mut slopes = Vec::new();
    for (number, (at, value)) in points.iter().enumerate() {
        let later = points.iter().skip(number + 1);
        let later = later.filter(|(then, _)| then > at);
        slopes.extend(later.map(|(then, other)| (other - value) / (then - at)));
    }
    let middle = slopes.len() / 2;
    let is_even = slopes.len() % 2 == 0;
    slopes.sort_by(f64::total_cmp);
    let upper = *slopes.get(middle)?;
    let lower = slopes.get(middle.checked_sub(1)?).filter(|_| is_even);
    Some(lower.map_or(upper, |lower| lower.midpoint(upper)))
}

#[cfg(test)]
#[path = "trend_tests.rs"]
mod tests;
