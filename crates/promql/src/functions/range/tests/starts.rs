//! Counters with start timestamps against one window at a time.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
struct Point {
    t: i64,
    v: f64,
    start: i64,
}

fn reset(before: Point, after: Point) -> bool {
    if after.v < before.v {
        return true;
    }
    let known = after.start != 0 && after.start < after.t;
    let delta = after.start == before.t && before.start != 0 && before.start < before.t;
    known && (after.start > before.t || delta)
}

fn expected(name: &str, window: &[Point], (start, end): (i64, i64)) -> Option<f64> {
    let (first, last) = (*window.first()?, *window.last()?);
    let resets = || window.windows(2).filter(|pair| reset(pair[0], pair[1]));
    if name == "resets" {
        return Some(resets().count() as f64);
    }
    if name == "irate" {
        let [.., before, after] = window else { return None };
        let change = if reset(*before, *after) { after.v } else { after.v - before.v };
        return Some(change / ((after.t - before.t) as f64 / 1000.0));
    }
    let mut change = last.v - first.v;
    for pair in resets() {
        change += pair[0].v;
    }
    let between =
        if window.len() > 1 { (last.t - first.t) as f64 / 1000.0 / (window.len() - 1) as f64 } else { 0.0 };
    let mut sampled = (last.t - first.t) as f64 / 1000.0;
    let mut to_start = (first.t - start) as f64 / 1000.0;
    if first.start != 0 && first.start > start && first.start < first.t {
        sampled = (last.t - first.start) as f64 / 1000.0;
        to_start = 0.0;
        change += first.v;
    } else if window.len() == 1 {
        return None;
    } else {
        if to_start >= between * 1.1 {
            to_start = between / 2.0;
        }
        if change > 0.0 && first.v >= 0.0 {
            to_start = to_start.min(sampled * (first.v / change));
        }
    }
    let mut to_end = (end - last.t) as f64 / 1000.0;
    if to_end >= between * 1.1 {
        to_end = between / 2.0;
    }
    let increase = change * ((sampled + to_start + to_end) / sampled);
    Some(if name == "rate" { increase / ((end - start) as f64 / 1000.0) } else { increase })
}

/// A sample behind the one before: how far, its value, and where its start is.
fn point() -> impl Strategy<Value = (i64, f64, u8, i64)> {
    (1i64..40, (0i32..40).prop_map(f64::from), 0u8..6, 1i64..60)
}

proptest! {
    #[test]
    fn starts_prove_resets_and_stand_for_zeros(
        points in prop::collection::vec(point(), 1..150),
        start in -100i64..600, step in 1i64..120, count in 1usize..40, range in 1i64..300,
    ) {
        let mut data = Samples::default();
        let mut all: Vec<Point> = Vec::new();
        let mut t = 0;
        for (gap, v, kind, back) in points {
            let before = all.last().copied();
            t += gap;
            let start = match kind {
                0 => 0,
                1 => before.map_or(0, |before| before.t),
                2 => before.map_or(-5, |before| before.start),
                3 => t,
                4 => t + back,
                _ => t - back,
            };
            data.push(t, v);
            data.push_start(t, start);
            all.push(Point { t, v, start });
        }
        let windows = windows(Grid { start, step, count }, range, 0);
        for name in ["rate", "increase", "irate", "resets"] {
            let got = run(name, &[], &data, &windows, "x_total").unwrap().values;
            for (step, got) in got.iter().enumerate() {
                let ends = (windows.start(step), windows.end(step));
                let window: Vec<Point> =
                    all.iter().copied().filter(|point| point.t > ends.0 && point.t <= ends.1).collect();
                let expected = expected(name, &window, ends).unwrap_or(stale_nan());
                let near = same(*got, expected) || (got - expected).abs() <= 1e-9 * expected.abs();
                prop_assert!(near, "{name} step {step}: {got}, not {expected}: {window:?}");
            }
        }
    }
}

#[test]
fn without_known_starts_bits_are_the_same() {
    let plain = every_ten_seconds(&[0.5, 10.25, 20.1, 5.3, 15.7, 25.9]);
    let mut known = plain.clone();
    // Before all of it, in seconds that are not whole.
    known.push_start(4_000_000, 17);
    for range in [10_000, 25_000, 60_000] {
        let windows = windows(Grid { start: 4_000_000, step: 3_000, count: 20 }, range, 0);
        for name in ["rate", "increase", "irate", "resets", "delta", "changes"] {
            let values = |data| run(name, &[], data, &windows, "x_total").unwrap().values;
            let bits = |data| values(data).iter().map(|v: &f64| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&plain), bits(&known), "{name} over {range}");
        }
    }
}
