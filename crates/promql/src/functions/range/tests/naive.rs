//! The functions as their definitions read, one window at a time.

use chronolith_storage::Samples;

use crate::series::Windows;

pub(super) fn eval(
    name: &str,
    params: &[f64],
    data: &Samples,
    windows: &Windows,
    step: usize,
) -> Option<f64> {
    let (start, end) = (windows.start(step), windows.end(step));
    let inside: Vec<usize> =
        (0..data.len()).filter(|i| data.timestamps[*i] > start && data.timestamps[*i] <= end).collect();
    let v: Vec<f64> = inside.iter().map(|i| data.values[*i]).collect();
    let t: Vec<i64> = inside.iter().map(|i| data.timestamps[*i]).collect();
    let n = v.len();
    let least = match name {
        "rate"
        | "increase"
        | "delta"
        | "irate"
        | "idelta"
        | "deriv"
        | "predict_linear"
        | "double_exponential_smoothing" => 2,
        _ => 1,
    };
    if n < least {
        return None;
    }
    let best = |better: fn(f64, f64) -> bool| {
        let mut best = 0;
        for i in 0..n {
            if better(v[i], v[best]) || v[best].is_nan() {
                best = i;
            }
        }
        best
    };
    Some(match name {
        "rate" => {
            let (change, factor) = extrapolate(&t, &v, start, end, true);
            // Go's Duration.Seconds adds the fraction to the whole seconds.
            let range_seconds = (windows.range / 1000) as f64 + (windows.range % 1000) as f64 / 1e3;
            change * (factor / range_seconds)
        }
        "increase" => {
            let (change, factor) = extrapolate(&t, &v, start, end, true);
            change * factor
        }
        "delta" => {
            let (change, factor) = extrapolate(&t, &v, start, end, false);
            change * factor
        }
        "irate" => {
            let change = if v[n - 1] < v[n - 2] { v[n - 1] } else { v[n - 1] - v[n - 2] };
            change / ((t[n - 1] - t[n - 2]) as f64 / 1000.0)
        }
        "idelta" => v[n - 1] - v[n - 2],
        "resets" => (1..n).filter(|i| v[*i] < v[i - 1]).count() as f64,
        "changes" => {
            (1..n).filter(|i| v[*i] != v[i - 1] && !(v[*i].is_nan() && v[i - 1].is_nan())).count() as f64
        }
        "deriv" => line(&t, &v, t[0]).0,
        "predict_linear" => {
            let (slope, intercept) = line(&t, &v, windows.grid.time(step));
            slope * params[0] + intercept
        }
        "double_exponential_smoothing" => {
            let (sf, tf) = (params[0], params[1]);
            let (mut s0, mut s1, mut b) = (0.0, v[0], v[1] - v[0]);
            for (i, x) in v.iter().enumerate().skip(1) {
                if i > 1 {
                    b = tf * (s1 - s0) + (1.0 - tf) * b;
                }
                (s0, s1) = (s1, sf * x + (1.0 - sf) * (s1 + b));
            }
            s1
        }
        "sum_over_time" => {
            let (s, c) = neumaier(&v);
            if s.is_infinite() { s } else { s + c }
        }
        "avg_over_time" => mean(&v),
        "min_over_time" => v[best(|new, old| new < old)],
        "max_over_time" => v[best(|new, old| new > old)],
        "ts_of_min_over_time" => t[best(|new, old| new <= old)] as f64 / 1000.0,
        "ts_of_max_over_time" => t[best(|new, old| new >= old)] as f64 / 1000.0,
        "count_over_time" => n as f64,
        "present_over_time" => 1.0,
        "first_over_time" => v[0],
        "last_over_time" => v[n - 1],
        "ts_of_first_over_time" => t[0] as f64 / 1000.0,
        "ts_of_last_over_time" => t[n - 1] as f64 / 1000.0,
        "stdvar_over_time" => variance(&v),
        "stddev_over_time" => variance(&v).sqrt(),
        "quantile_over_time" => quantile(params[0], &v),
        "mad_over_time" if v.iter().any(|v| v.is_nan()) => f64::NAN,
        "mad_over_time" => {
            let median = quantile(0.5, &v);
            quantile(0.5, &v.iter().map(|v| (v - median).abs()).collect::<Vec<_>>())
        }
        _ => panic!("no definition of {name}"),
    })
}

/// The change between the samples and the factor that extrapolates it.
fn extrapolate(t: &[i64], v: &[f64], start: i64, end: i64, counter: bool) -> (f64, f64) {
    let n = v.len();
    let mut change = v[n - 1] - v[0];
    if counter {
        for i in 1..n {
            if v[i] < v[i - 1] {
                change += v[i - 1];
            }
        }
    }
    let mut to_start = (t[0] - start) as f64 / 1000.0;
    let mut to_end = (end - t[n - 1]) as f64 / 1000.0;
    let sampled = (t[n - 1] - t[0]) as f64 / 1000.0;
    let average = sampled / (n - 1) as f64;
    if to_start >= average * 1.1 {
        to_start = average / 2.0;
    }
    if counter && change > 0.0 && v[0] >= 0.0 && sampled * (v[0] / change) < to_start {
        to_start = sampled * (v[0] / change);
    }
    if to_end >= average * 1.1 {
        to_end = average / 2.0;
    }
    (change, (sampled + to_start + to_end) / sampled)
}

fn neumaier(v: &[f64]) -> (f64, f64) {
    let (mut s, mut c) = (0.0, 0.0);
    for x in v {
        add(*x, &mut s, &mut c);
    }
    (s, c)
}

fn add(x: f64, s: &mut f64, c: &mut f64) {
    let t = *s + x;
    if t.is_infinite() {
        *c = 0.0;
    } else if s.abs() >= x.abs() {
        *c += (*s - t) + x;
    } else {
        *c += (x - t) + *s;
    }
    *s = t;
}

fn mean(v: &[f64]) -> f64 {
    let (mut s, mut c) = (v[0], 0.0);
    for (i, x) in v.iter().enumerate().skip(1) {
        let (before, before_c) = (s, c);
        add(*x, &mut s, &mut c);
        if s.is_infinite() {
            let mut mean = before / i as f64;
            let mut c = before_c / i as f64;
            for (j, x) in v.iter().enumerate().skip(i) {
                let q = j as f64 / (j + 1) as f64;
                mean *= q;
                c *= q;
                add(x / (j + 1) as f64, &mut mean, &mut c);
            }
            return mean + c;
        }
    }
    s / v.len() as f64 + c / v.len() as f64
}

fn variance(v: &[f64]) -> f64 {
    let (mut count, mut mean, mut mean_c, mut aux, mut aux_c) = (0.0, 0.0, 0.0, 0.0, 0.0);
    for x in v {
        count += 1.0;
        let delta = x - (mean + mean_c);
        add(delta / count, &mut mean, &mut mean_c);
        add(delta * (x - (mean + mean_c)), &mut aux, &mut aux_c);
    }
    (aux + aux_c) / count
}

fn quantile(q: f64, v: &[f64]) -> f64 {
    let mut v = v.to_vec();
    v.sort_by(|a, b| a.partial_cmp(b).unwrap_or_else(|| b.is_nan().cmp(&a.is_nan())));
    let last = (v.len() - 1) as f64;
    let rank = q * last;
    let low = rank.floor().max(0.0);
    let high = (low + 1.0).min(last);
    let weight = rank - rank.floor();
    v[low as usize] * (1.0 - weight) + v[high as usize] * weight
}

fn line(t: &[i64], v: &[f64], reference: i64) -> (f64, f64) {
    if v[1..].iter().all(|y| *y == v[0]) {
        return if v[0].is_infinite() { (f64::NAN, f64::NAN) } else { (0.0, v[0]) };
    }
    let n = v.len() as f64;
    let x: Vec<f64> = t.iter().map(|t| (t - reference) as f64 / 1e3).collect();
    let total = |f: &dyn Fn(usize) -> f64| {
        let (s, c) = neumaier(&(0..v.len()).map(f).collect::<Vec<_>>());
        s + c
    };
    let (sx, sy) = (total(&|i| x[i]), total(&|i| v[i]));
    let (sxy, sxx) = (total(&|i| x[i] * v[i]), total(&|i| x[i] * x[i]));
    let slope = (sxy - sx * sy / n) / (sxx - sx * sx / n);
    (slope, sy / n - slope * sx / n)
}
