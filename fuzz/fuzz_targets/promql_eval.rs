//! Queries over a few series with everything that real ones do badly: evaluation ends within its limits, and a range query
//! says at each of its steps what an instant query of that time says, bit for bit.
#![no_main]

mod eval_data;
mod random_expr;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use chronolith_model::Labels;
use chronolith_promql::{Engine, EngineOptions, Query, QueryError, SampleValue, Value};
use chronolith_storage::{MemoryStorage, conformance::block_on};
use chronolith_syntax::{
    ParseOptions,
    ast::{Aggregate, AggregateOp, Expr, ExprKind},
    walk,
};
use libfuzzer_sys::{arbitrary::Unstructured, fuzz_target};
use random_expr::Expressions;

const DEPTH: usize = 4;
const STEPS: i64 = 8;
/// How long a query may take, and what it may overstay when it is told to stop.
const TIMEOUT: Duration = Duration::from_secs(2);
const OVERTIME: Duration = Duration::from_millis(500);
const MEMORY_BYTES_MAX: usize = 64 << 20;

struct World {
    storage: MemoryStorage,
    /// Metric names dropped at each operator, and at the end.
    engines: [Engine; 2],
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let options = |delayed_name_removal| EngineOptions {
        threads: 1,
        parse: ParseOptions::all(),
        timeout: TIMEOUT,
        samples_max: 1_000_000,
        memory_max_bytes: MEMORY_BYTES_MAX,
        delayed_name_removal,
        ..EngineOptions::default()
    };
    World { storage: eval_data::storage(), engines: [false, true].map(|late| Engine::new(options(late))) }
});

/// What there is at one time, by labels.
type Moment = BTreeMap<Labels, SampleValue>;

fuzz_target!(|data: &[u8]| {
    let mut bytes = Unstructured::new(data);
    let late = bytes.int_in_range(0..=3).unwrap_or(0) == 3;
    let engine = &WORLD.engines[usize::from(late)];
    let start = bytes.int_in_range(-20_000..=700_000).unwrap_or(0);
    let step = [15_000, 1, 7_000, 60_000, 14_999, 300_000][bytes.int_in_range(0..=5).unwrap_or(0)];
    let end = start + step * bytes.int_in_range(0..=STEPS - 1).unwrap_or(0);
    let expr = Expressions::new(&mut bytes, Some(&eval_data::WORDS)).expression(DEPTH);
    let text = expr.to_string();
    let asked = format!("{text} from {start} to {end} by {step}");

    let range = run(engine, &Query::range(text.as_str(), start, end, step), &asked);
    let mut moments = Vec::new();
    for t in (start..=end).step_by(step as usize) {
        moments.push((t, run(engine, &Query::instant(text.as_str(), t), &asked)));
    }
    // Where names are dropped late, a series that has its name at some steps has it at all or none, as in Prometheus.
    if late || may_pin_a_parameter(&expr) || uses_what_is_ranked(&expr) {
        return;
    }
    match range {
        Ok(Value::Matrix(matrix)) => {
            let mut of_range: BTreeMap<i64, Moment> = BTreeMap::new();
            for series in matrix {
                let floats = series.points.iter().map(|(t, v)| (*t, SampleValue::Float(*v)));
                let natives = series.histograms.iter().map(|(t, h)| (*t, SampleValue::Histogram(h.clone())));
                for (t, value) in floats.chain(natives) {
                    let twice = of_range.entry(t).or_default().insert(series.labels.clone(), value);
                    assert!(twice.is_none(), "{asked}: {} twice at {t}", series.labels);
                }
            }
            for (t, instant) in moments {
                let alone = match instant {
                    Ok(value) => moment(value),
                    Err(error) if is_limit(&error) => continue,
                    Err(error) => panic!("{asked}: fine as a range, but at {t}: {error}"),
                };
                let within = of_range.remove(&t).unwrap_or_default();
                assert!(same(&within, &alone), "{asked}: at {t} {within:?}\nand alone {alone:?}");
            }
            assert!(of_range.is_empty(), "{asked}: points beside the steps: {of_range:?}");
        }
        Ok(other) => panic!("{asked}: a range query gave {other:?}"),
        Err(error) if is_limit(&error) || is_of_all_steps(&error) => {}
        Err(error) => {
            let mut alone = moments.iter().filter_map(|(_, moment)| moment.as_ref().err());
            assert!(alone.next().is_some(), "{asked}: fine at each step, but as a range: {error}");
        }
    }
});

/// Whether there is an aggregation whose parameter varies, of something that may not: Prometheus takes such an aggregation,
/// and its parameter with it, for the same at every step.
fn may_pin_a_parameter(expr: &Expr) -> bool {
    let mut found = false;
    walk(expr, &mut |expr| {
        if let ExprKind::Aggregate(Aggregate { param: Some(param), expr: inner, .. }) = &expr.kind {
            found |= !matches!(param.kind, ExprKind::Number(_) | ExprKind::String(_)) && may_be_pinned(inner);
        }
        !found
    });
    found
}

/// Whether something is made of series that were chosen: an instant query has these in the order of their values, a range query
/// in that of their labels, as in Prometheus; of equals the first are chosen, and sums differ in their last bits.
fn uses_what_is_ranked(expr: &Expr) -> bool {
    let mut found = false;
    for inside in expr.without_parens().children() {
        walk(inside, &mut |inner| {
            found |= matches!(&inner.kind, ExprKind::Aggregate(inner) if ranks(inner.op));
            !found
        });
    }
    found
}

const fn ranks(op: AggregateOp) -> bool {
    matches!(op, AggregateOp::Topk | AggregateOp::Bottomk | AggregateOp::Limitk | AggregateOp::LimitRatio)
}

fn may_be_pinned(expr: &Expr) -> bool {
    let (mut selects, mut pinned) = (false, false);
    walk(expr, &mut |expr| {
        let at = match &expr.kind {
            ExprKind::Vector(selector) => selector.at,
            ExprKind::Matrix(matrix) => matrix.selector.at,
            ExprKind::Subquery(subquery) => subquery.at,
            _ => return true,
        };
        selects = true;
        pinned |= at.is_some();
        true
    });
    pinned || !selects
}

fn run(engine: &Engine, query: &Query, asked: &str) -> Result<Value, QueryError> {
    let begin = Instant::now();
    let result = block_on(engine.run(&WORLD.storage, query));
    let took = begin.elapsed();
    assert!(took < TIMEOUT + OVERTIME, "{asked} took {took:?}");
    match result {
        Ok(result) => {
            let bytes = result.memory.bytes();
            assert!(bytes <= MEMORY_BYTES_MAX, "{asked} holds {bytes} bytes");
            Ok(result.value)
        }
        Err(error @ (QueryError::Execution(_) | QueryError::Timeout(_))) => Err(error),
        // Durations that are computed may be out of range, and label names need not be valid.
        Err(error @ (QueryError::Parse(_) | QueryError::BadData(_))) => Err(error),
        Err(error) => panic!("{asked}: {error:?}"),
    }
}

/// Whether a query may fail so that another part of it does not.
fn is_limit(error: &QueryError) -> bool {
    let text = error.to_string();
    matches!(error, QueryError::Timeout(_)) || text.contains("query processing would ")
}

/// Whether the error is about series of different steps.
fn is_of_all_steps(error: &QueryError) -> bool {
    error.to_string() == "vector cannot contain metrics with the same labelset"
}

fn moment(value: Value) -> Moment {
    match value {
        Value::Scalar { value, .. } => Moment::from([(Labels::default(), SampleValue::Float(value))]),
        Value::Vector(samples) => samples.into_iter().map(|sample| (sample.labels, sample.value)).collect(),
        other => panic!("an instant query of an operand gave {other:?}"),
    }
}

fn same(a: &Moment, b: &Moment) -> bool {
    let values = |a: &SampleValue, b: &SampleValue| match (a, b) {
        (SampleValue::Float(a), SampleValue::Float(b)) => {
            a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
        }
        (SampleValue::Histogram(a), SampleValue::Histogram(b)) => a.to_literal() == b.to_literal(),
        _ => false,
    };
    a.len() == b.len() && a.iter().zip(b).all(|((a, x), (b, y))| a == b && values(x, y))
}
