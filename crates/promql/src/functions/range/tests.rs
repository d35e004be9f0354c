//! All kernels against golden results of Prometheus, and against one window at a time computed the plain way.

use chronolith_model::{Labels, stale_nan};
use chronolith_storage::Samples;
use chronolith_syntax::ast::{RangeMode, Span};
use proptest::prelude::*;

use super::{RangeFunction, eval};
use crate::{
    annotations::Annotations,
    eval::NativeSamples,
    series::{Column, Grid, KernelContext, WindowEnd, Windows, is_absent},
};

mod extended;
mod naive;
mod starts;

const ALL: [&str; 26] = [
    "rate",
    "increase",
    "delta",
    "irate",
    "idelta",
    "resets",
    "changes",
    "deriv",
    "predict_linear",
    "double_exponential_smoothing",
    "avg_over_time",
    "sum_over_time",
    "min_over_time",
    "max_over_time",
    "count_over_time",
    "quantile_over_time",
    "stddev_over_time",
    "stdvar_over_time",
    "mad_over_time",
    "first_over_time",
    "last_over_time",
    "present_over_time",
    "ts_of_first_over_time",
    "ts_of_last_over_time",
    "ts_of_min_over_time",
    "ts_of_max_over_time",
];

const SPANS: [Span; 2] = [Span { start: 5, end: 6 }, Span { start: 9, end: 10 }];

fn samples(pairs: &[(i64, f64)]) -> Samples {
    let mut samples = Samples::default();
    pairs.iter().filter(|(_, v)| !chronolith_model::is_stale(*v)).for_each(|(t, v)| samples.push(*t, *v));
    samples
}

fn windows(grid: Grid, range: i64, offset: i64) -> Windows {
    Windows { grid, end: WindowEnd::Offset(offset), range, mode: RangeMode::Plain, lookback: 300_000 }
}

struct Run {
    values: Vec<f64>,
    warnings: Vec<String>,
    infos: Vec<String>,
}

fn run(
    name: &str,
    params: &[f64],
    samples: &Samples,
    windows: &Windows,
    metric: &str,
) -> Result<Run, String> {
    let params: Vec<Vec<f64>> = params.iter().map(|p| vec![*p; windows.grid.count]).collect();
    let params: Vec<&[f64]> = params.iter().map(|p| &p[..]).collect();
    let labels = Labels::from_pairs([("__name__", metric), ("i", "1")]);
    let mut context = KernelContext {
        notes: Annotations::default(),
        span: Span::default(),
        args: &SPANS,
        labels: Some(&labels),
        delayed_name_removal: false,
        type_and_unit_labels: false,
    };
    let mut out = Column::absent(windows.grid.count);
    let function = RangeFunction::from_name(name).expect("a known function");
    let natives = NativeSamples::default();
    let sight = super::Sight::of(function, &samples.timestamps, windows);
    eval(function, &params, (samples, sight.seen()), &natives, windows, &mut out, &mut context)
        .map_err(|error| error.to_string())?;
    let (warnings, infos) = context.notes.render("rate(m[1m], 5)");
    Ok(Run { values: out.values().to_vec(), warnings, infos })
}

fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan() && is_absent(a) == is_absent(b))
}

fn every_ten_seconds(values: &[f64]) -> Samples {
    let pairs: Vec<_> = values.iter().enumerate().map(|(i, v)| (4_000_000 + 10_000 * i as i64, *v)).collect();
    samples(&pairs)
}

#[track_caller]
fn golden(name: &str, params: &[f64], data: &Samples, range_s: i64, at_s: i64, expected: Option<f64>) {
    let windows = windows(Grid::single(at_s * 1000), range_s * 1000, 0);
    let got = run(name, params, data, &windows, "m_total").unwrap().values[0];
    let expected = expected.unwrap_or(stale_nan());
    assert!(same(got, expected), "{name}[{range_s}s] @{at_s}: {got}, not {expected}");
}

#[test]
fn golden_results() {
    let m = every_ten_seconds(&[1.0, 2.0, 3.0, stale_nan(), 5.0, f64::NAN]);
    let c = every_ten_seconds(&[0.0, 10.0, 20.0, 5.0, 15.0, 25.0]);
    let g = every_ten_seconds(&[1.0, 3.0, 2.0, 8.0, 8.0, 4.0]);
    for (name, params, data, range, at, expected) in [
        ("count_over_time", &[][..], &m, 60, 4050, Some(5.0)),
        ("sum_over_time", &[], &m, 60, 4050, Some(f64::NAN)),
        ("last_over_time", &[], &m, 60, 4050, Some(f64::NAN)),
        ("max_over_time", &[], &m, 60, 4050, Some(5.0)),
        ("present_over_time", &[], &m, 10, 4030, None),
        ("present_over_time", &[], &m, 20, 4030, Some(1.0)),
        ("changes", &[], &m, 60, 4050, Some(4.0)),
        ("rate", &[], &c, 60, 4050, Some(0.75)),
        ("increase", &[], &c, 60, 4050, Some(45.0)),
        ("increase", &[], &c, 50, 4050, Some(43.75)),
        ("increase", &[], &c, 20, 4050, Some(20.0)),
        ("rate", &[], &c, 10, 4050, None),
        ("irate", &[], &c, 60, 4030, Some(0.5)),
        ("irate", &[], &c, 60, 4050, Some(1.0)),
        ("idelta", &[], &c, 60, 4030, Some(-15.0)),
        ("resets", &[], &c, 60, 4050, Some(1.0)),
        ("delta", &[], &g, 60, 4050, Some(3.5999999999999996)),
        ("rate", &[], &g, 60, 4050, Some(0.25)),
        ("changes", &[], &g, 60, 4050, Some(4.0)),
        ("deriv", &[], &g, 60, 4050, Some(0.10285714285714286)),
        ("predict_linear", &[60.0], &g, 60, 4050, Some(13.076190476190476)),
        ("avg_over_time", &[], &g, 60, 4050, Some(4.333333333333333)),
        ("min_over_time", &[], &g, 60, 4050, Some(1.0)),
        ("stddev_over_time", &[], &g, 60, 4050, Some(2.748737083745107)),
        ("stdvar_over_time", &[], &g, 60, 4050, Some(7.555555555555556)),
        ("quantile_over_time", &[0.5], &g, 60, 4050, Some(3.5)),
        ("quantile_over_time", &[0.9], &g, 60, 4050, Some(8.0)),
        ("mad_over_time", &[], &g, 60, 4050, Some(2.0)),
        ("double_exponential_smoothing", &[0.5, 0.5], &g, 60, 4050, Some(7.0859375)),
        ("ts_of_max_over_time", &[], &g, 60, 4050, Some(4040.0)),
        ("ts_of_min_over_time", &[], &g, 60, 4050, Some(4000.0)),
        ("ts_of_first_over_time", &[], &g, 50, 4050, Some(4010.0)),
        ("ts_of_last_over_time", &[], &g, 50, 4055, Some(4050.0)),
        ("first_over_time", &[], &g, 50, 4050, Some(3.0)),
    ] {
        golden(name, params, data, range, at, expected);
    }
    let repaired = samples(&[(1200, 6.0), (1500, 5.0), (2000, 7.0)]);
    let at = |t| windows(Grid::single(t), 4000, 0);
    assert_eq!(run("rate", &[], &repaired, &at(4500), "x_total").unwrap().values, [2.6249999999999996]);
}

#[test]
fn an_offset_moves_windows_but_not_the_origin_of_predictions() {
    let g = every_ten_seconds(&[1.0, 3.0, 2.0, 8.0, 8.0, 4.0]);
    let plain = windows(Grid::single(4_050_000), 60_000, 0);
    let moved = windows(Grid::single(4_150_000), 60_000, 100_000);
    for name in ALL.iter().filter(|name| **name != "predict_linear") {
        let params = [0.5, 0.5];
        let (a, b) =
            (run(name, &params, &g, &plain, "m").unwrap(), run(name, &params, &g, &moved, "m").unwrap());
        assert!(same(a.values[0], b.values[0]), "{name}");
    }
    let slope = 0.10285714285714286;
    let ahead = |windows| run("predict_linear", &[60.0], &g, windows, "m").unwrap().values[0];
    assert!((ahead(&moved) - ahead(&plain) - 100.0 * slope).abs() < 1e-9);
    let pinned = Windows {
        end: WindowEnd::Fixed(4_050_000),
        ..windows(Grid { start: 0, step: 1, count: 3 }, 60_000, 0)
    };
    assert_eq!(run("sum_over_time", &[], &g, &pinned, "m").unwrap().values, [26.0; 3]);
}

#[test]
fn what_leaves_the_window_leaves_no_trace() {
    for (special, pad) in [(1e100, 40), (f64::INFINITY, 40), (f64::NAN, 40), (f64::NEG_INFINITY, 300)] {
        let mut values: Vec<f64> = (0..pad).map(|i| 0.1 + f64::from(i % 7) * 0.3).collect();
        values[3] = special;
        let pairs: Vec<_> = values.iter().enumerate().map(|(i, v)| (i as i64 * 1000, *v)).collect();
        let data = samples(&pairs);
        for (range, step) in [(10_000, 1000), (10_000, 10), (3000, 1000), (100_000, 100)] {
            let count = (pad as i64 * 1000 / step) as usize;
            let windows = windows(Grid { start: -5000, step, count }, range, 0);
            for name in ALL {
                compare(name, &data, &windows);
            }
        }
    }
}

/// Compares a kernel with the plain computation of each window.
#[track_caller]
fn compare(name: &str, data: &Samples, windows: &Windows) {
    let params: &[f64] = match name {
        "predict_linear" => &[600.0],
        "quantile_over_time" => &[0.9],
        "double_exponential_smoothing" => &[0.3, 0.6],
        _ => &[],
    };
    let tolerance = match name {
        "sum_over_time" | "avg_over_time" => 1e-12,
        "stddev_over_time" | "stdvar_over_time" | "deriv" | "predict_linear" => 1e-9,
        _ => 0.0,
    };
    let got = run(name, params, data, windows, "x_total").unwrap().values;
    for (step, got) in got.iter().enumerate() {
        let expected = naive::eval(name, params, data, windows, step).unwrap_or(stale_nan());
        let near = !is_absent(*got)
            && !is_absent(expected)
            && (got - expected).abs() <= tolerance * got.abs().max(expected.abs());
        assert!(
            same(*got, expected) || near,
            "{name} at step {step} of {windows:?}: {got:e}, not {expected:e}\n{data:?}"
        );
    }
}

fn value(kind: u8) -> BoxedStrategy<f64> {
    let special = prop_oneof![
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::NEG_INFINITY),
        Just(1e100),
        Just(-1e100),
        Just(1.7e308),
        Just(-1.7e308),
        Just(-0.0),
        Just(5e-324),
    ];
    match kind {
        0 => (0i32..50).prop_map(f64::from).boxed(),
        1 => (-1000i32..1000).prop_map(|v| f64::from(v) / 10.0).boxed(),
        2 => prop_oneof![20 => (-1000i32..1000).prop_map(|v| f64::from(v) / 10.0), 1 => special].boxed(),
        3 => (0i32..3).prop_map(|v| 1e6 + f64::from(v) * 1e-3).boxed(),
        4 => Just(0.1).boxed(),
        _ => prop_oneof![2 => special, 1 => any::<f64>()].boxed(),
    }
}

fn data() -> impl Strategy<Value = Samples> {
    (0u8..6, -3000i64..3000).prop_flat_map(|(kind, first)| {
        prop::collection::vec((1i64..40, value(kind)), 0..160).prop_map(move |rows| {
            let mut t = first;
            let pairs: Vec<_> = rows
                .into_iter()
                .map(|(gap, v)| {
                    t += gap;
                    (t, v)
                })
                .collect();
            samples(&pairs)
        })
    })
}

/// Windows that overlap little, much, and very much.
fn any_windows() -> impl Strategy<Value = Windows> {
    let shape = prop_oneof![
        (20i64..400, 1usize..30, 1i64..300),
        (1i64..30, 1usize..200, 1i64..2000),
        (1i64..8, 150usize..400, 1500i64..4000),
    ];
    (-3500i64..3000, shape, -200i64..200)
        .prop_map(|(start, (step, count, range), offset)| windows(Grid { start, step, count }, range, offset))
}

proptest! {
    #[test]
    fn kernels_equal_the_plain_computation(data in data(), windows in any_windows()) {
        for name in ALL {
            compare(name, &data, &windows);
        }
    }

    #[test]
    fn sums_are_bit_equal_where_windows_overlap_little(
        data in data(), start in -3500i64..3000, step in 20i64..400, count in 1usize..30, length in 1i64..20,
    ) {
        let windows = windows(Grid { start, step, count }, step * length, 0);
        for name in ["sum_over_time", "avg_over_time", "stddev_over_time", "stdvar_over_time", "deriv"] {
            let got = run(name, &[], &data, &windows, "x").unwrap().values;
            for (step, got) in got.iter().enumerate() {
                let expected = naive::eval(name, &[], &data, &windows, step).unwrap_or(stale_nan());
                prop_assert!(same(*got, expected), "{} at {}: {:e}, not {:e}", name, step, got, expected);
            }
        }
    }
}

#[test]
fn long_windows() {
    let count = 3000;
    let pattern = |i: i64| ((i * 7919) % 1000) as f64;
    let shapes: [&dyn Fn(i64) -> f64; 6] = [
        &|i| pattern(i) * 0.1,
        &|i| 1e9 + pattern(i) * 1e-3,
        &|i| i as f64 * 0.1 + pattern(i) * 1e-6,
        &|i| 1.1e11 - i as f64 * 1e5 + pattern(i),
        &|_| 0.1,
        &|i| if i == 1500 { f64::INFINITY } else { pattern(i) * 0.1 },
    ];
    for value in shapes {
        let pairs: Vec<_> = (0..count).map(|i| (i * 15_000 + i * 37 % 11, value(i))).collect();
        let data = samples(&pairs);
        for (start, step, steps, range, offset) in
            [(0, 60_000, 400, 21_600_000, 0), (30_000_000, 15_000, 300, 3_600_000, 600_000)]
        {
            let windows = windows(Grid { start, step, count: steps }, range, offset);
            for name in ALL {
                compare(name, &data, &windows);
            }
        }
    }
}

#[test]
fn many_resets() {
    for decimals in [1.0, 0.1] {
        let pairs: Vec<_> = (0..500).map(|i| (i * 15_000, ((i * 7919) % 23) as f64 * decimals)).collect();
        let data = samples(&pairs);
        let windows = windows(Grid { start: 0, step: 15_000, count: 500 }, 900_000, 0);
        for name in ["rate", "increase", "resets", "irate"] {
            compare(name, &data, &windows);
        }
    }
}

#[test]
fn notes() {
    let c = every_ten_seconds(&[0.0, 10.0, 20.0]);
    let w = windows(Grid { start: 4_000_000, step: 10_000, count: 3 }, 60_000, 0);
    let info = |name: &str, metric: &str| run(name, &[], &c, &w, metric).unwrap().infos;
    let text = "PromQL info: metric might not be a counter, name does not end in _total/_sum/_count/_bucket: \"m\" (1:6)";
    assert_eq!(info("rate", "m"), [text]);
    assert_eq!(info("increase", "m"), [text]);
    assert!(info("irate", "m").is_empty() && info("delta", "m").is_empty());
    for metric in ["m_total", "m_sum", "m_count", "m_bucket", ""] {
        assert!(info("rate", metric).is_empty(), "{metric}");
    }
    let short = windows(Grid::single(4_000_000), 5_000, 0);
    assert!(run("rate", &[], &c, &short, "m").unwrap().infos.is_empty(), "no result, no info");

    let quantile = run("quantile_over_time", &[2.0], &c, &w, "m").unwrap();
    assert_eq!(quantile.values, [f64::INFINITY; 3]);
    assert_eq!(quantile.warnings, ["PromQL warning: quantile value should be between 0 and 1, got 2 (1:6)"]);
    let nothing = windows(Grid::single(0), 5_000, 0);
    assert!(run("quantile_over_time", &[2.0], &c, &nothing, "m").unwrap().warnings.is_empty());
}

#[test]
fn smoothing_factors_are_checked() {
    let c = every_ten_seconds(&[0.0, 10.0, 20.0]);
    let w = windows(Grid::single(4_020_000), 60_000, 0);
    let error = |sf, tf, w| run("double_exponential_smoothing", &[sf, tf], &c, w, "m").err();
    let text = "invalid smoothing factor. Expected: 0 < sf < 1, got: 1.500000";
    assert_eq!(error(1.5, 0.5, &w).as_deref(), Some(text));
    let text = "invalid trend factor. Expected: 0 < tf < 1, got: +Inf";
    assert_eq!(error(0.5, f64::INFINITY, &w).as_deref(), Some(text));
    assert_eq!(error(f64::NAN, 0.5, &w), None);
    assert_eq!(error(1.5, 0.5, &windows(Grid::single(0), 60_000, 0)), None, "no samples, no error");
}

#[test]
fn absent_over_time_is_not_here() {
    assert_eq!(RangeFunction::from_name("absent_over_time"), None);
    assert!(ALL.iter().all(|name| RangeFunction::from_name(name).is_some()));
    assert!(RangeFunction::Last.keeps_name() && !RangeFunction::TsOfLast.keeps_name());
}
