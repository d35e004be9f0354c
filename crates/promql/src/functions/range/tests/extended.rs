//! Anchored and smoothed windows against one window at a time, computed from what they mean.

use proptest::prelude::*;

use super::*;

/// The samples of one window: within reach at or before its start, inside, and within reach behind its end.
struct Parts {
    before: Option<(i64, f64)>,
    inside: Vec<(i64, f64)>,
    behind: Option<(i64, f64)>,
}

fn parts(data: &Samples, windows: &Windows, step: usize) -> Parts {
    let (start, end) = (windows.start(step), windows.end(step));
    let (left, right) = windows.reach();
    let all = || data.timestamps.iter().copied().zip(data.values.iter().copied());
    Parts {
        before: all().rfind(|(t, _)| *t <= start && *t > start - left),
        inside: all().filter(|(t, _)| *t > start && *t <= end).collect(),
        behind: all().find(|(t, _)| *t > end && *t <= end + right),
    }
}

fn line((t1, mut v1): (i64, f64), (t2, v2): (i64, f64), t: i64, counter: bool) -> f64 {
    if counter && v2 < v1 {
        v1 = 0.0;
    }
    v1 + (v2 - v1) * (t - t1) as f64 / (t2 - t1) as f64
}

/// The values that an anchored window compares; empty where it has nothing to say.
fn anchored(data: &Samples, windows: &Windows, step: usize) -> Vec<f64> {
    let Parts { before, inside, .. } = parts(data, windows, step);
    if inside.is_empty() {
        return Vec::new();
    }
    before.into_iter().chain(inside).map(|(_, v)| v).collect()
}

/// The value at the start of a smoothed window, those inside, the value at the end.
fn smoothed(data: &Samples, windows: &Windows, step: usize, counter: bool) -> Vec<f64> {
    let Parts { before, inside, behind } = parts(data, windows, step);
    let (start, end) = (windows.start(step), windows.end(step));
    let known: Vec<(i64, f64)> = before.into_iter().chain(inside).chain(behind).collect();
    let (Some(first), Some(last)) = (known.first(), known.last()) else { return Vec::new() };
    if last.0 <= start || first.0 > end {
        return Vec::new();
    }
    let at = |t: i64| {
        let index = known.partition_point(|sample| sample.0 < t);
        match known.get(index) {
            Some(exact) if exact.0 == t || index == 0 => exact.1,
            Some(next) => line(known[index - 1], *next, t, counter),
            None => last.1,
        }
    };
    let between = known.iter().filter(|(t, _)| *t > start && *t < end).map(|(_, v)| *v);
    std::iter::once(at(start)).chain(between).chain(std::iter::once(at(end))).collect()
}

fn expected(name: &str, data: &Samples, windows: &Windows, step: usize) -> Option<f64> {
    let counter = name != "delta";
    let values = if windows.mode == RangeMode::Anchored {
        anchored(data, windows, step)
    } else {
        smoothed(data, windows, step, counter)
    };
    let (first, last) = (*values.first()?, *values.last()?);
    let pairs = values.windows(2).map(|pair| (pair[0], pair[1]));
    let lost: f64 = pairs.clone().filter(|(before, after)| after < before).map(|(before, _)| before).sum();
    Some(match name {
        "delta" => last - first,
        "increase" => last - first + lost,
        "rate" => (last - first + lost) / (windows.range as f64 / 1000.0),
        "resets" => pairs.filter(|(before, after)| after < before).count() as f64,
        _ => pairs.filter(|(a, b)| a != b && !(a.is_nan() && b.is_nan())).count() as f64,
    })
}

fn near(a: f64, b: f64) -> bool {
    same(a, b) || (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1.0)
}

fn data(gaps: &[i64], values: &[f64]) -> Samples {
    let mut t = 0;
    let mut data = Samples::default();
    for (gap, value) in gaps.iter().zip(values) {
        t += gap;
        data.push(t, *value);
    }
    data
}

fn value() -> impl Strategy<Value = f64> {
    prop_oneof![
        20 => (0i32..50).prop_map(f64::from),
        3 => (0i32..50).prop_map(|v| f64::from(v) / 7.0),
        1 => Just(f64::NAN),
        1 => Just(f64::INFINITY),
        1 => Just(1e100),
    ]
}

proptest! {
    #[test]
    fn extended_windows_are_what_they_mean(
        gaps in prop::collection::vec(1i64..40, 1..150),
        values in prop::collection::vec(value(), 150),
        whole in any::<bool>(), start in -300i64..600, step in 1i64..120, count in 1usize..40, range in 1i64..300,
        lookback in 1i64..200, offset in -50i64..50, fixed in any::<bool>(),
    ) {
        // Sums of whole numbers are made in another way.
        let whole_values: Vec<f64> = values.iter().map(|v| if v.fract() == 0.0 && *v < 100.0 { *v } else { 3.0 }).collect();
        let data = data(&gaps, if whole { &whole_values } else { &values });
        let end = if fixed { WindowEnd::Fixed(start) } else { WindowEnd::Offset(offset) };
        let grid = Grid { start, step, count };
        for mode in [RangeMode::Anchored, RangeMode::Smoothed] {
            let windows = Windows { grid, end, range, mode, lookback };
            let names: &[&str] = match mode {
                RangeMode::Anchored => &["rate", "increase", "delta", "resets", "changes"],
                _ => &["rate", "increase", "delta"],
            };
            for name in names {
                let got = run(name, &[], &data, &windows, "x_total").unwrap().values;
                for (step, got) in got.iter().enumerate() {
                    let expected = expected(name, &data, &windows, step).unwrap_or(stale_nan());
                    prop_assert!(near(*got, expected), "{name} {mode:?} step {step}: {got}, not {expected}");
                }
            }
        }
    }

    #[test]
    fn smoothed_instants_lie_on_lines(
        gaps in prop::collection::vec(1i64..40, 1..60),
        values in prop::collection::vec(value(), 60),
        start in -100i64..300, step in 1i64..120, count in 1usize..40, lookback in 1i64..200,
    ) {
        let data = data(&gaps, &values);
        let (grid, end) = (Grid { start, step, count }, WindowEnd::Offset(0));
        let windows = Windows { grid, end, range: 0, mode: RangeMode::Smoothed, lookback };
        let mut got = Column::absent(count);
        crate::functions::range::smoothed(&data, &windows, got.values_mut());
        for (step, got) in got.values().iter().enumerate() {
            let t = windows.end(step);
            let known: Vec<(i64, f64)> = data.timestamps.iter().copied().zip(data.values.iter().copied())
                .filter(|(at, _)| *at > t - lookback && *at <= t + lookback).collect();
            let next = known.partition_point(|sample| sample.0 < t);
            let expected = match (next.checked_sub(1).map(|before| known[before]), known.get(next)) {
                (_, Some(exact)) if exact.0 == t => exact.1,
                (Some(before), Some(after)) => line(before, *after, t, false),
                (Some(before), None) => before.1,
                (None, _) => stale_nan(),
            };
            prop_assert!(near(*got, expected), "step {step}: {got}, not {expected}");
        }
    }
}

#[test]
fn extreme_times_saturate() {
    let data = samples(&[(i64::MIN + 1, 1.0), (0, 5.0), (i64::MAX, 2.0)]);
    for mode in [RangeMode::Anchored, RangeMode::Smoothed] {
        for start in [i64::MIN, i64::MAX - 5, 0] {
            let grid = Grid { start, step: i64::MAX / 2, count: 4 };
            let windows =
                Windows { grid, end: WindowEnd::Offset(0), range: i64::MAX, mode, lookback: i64::MAX };
            for name in ["rate", "increase", "delta"] {
                run(name, &[], &data, &windows, "x").unwrap();
            }
        }
    }
}
