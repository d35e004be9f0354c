//! Encoding of results; the texts are those of Prometheus 3.5.3.

use std::time::Duration;

use chronolith_model::Labels;
use chronolith_promql::{InstantSample, QueryResult, QueryStats, RangeSeries, ResultMemory, Value};

use super::query::encode;

fn result(value: Value) -> QueryResult {
    QueryResult {
        value,
        warnings: Vec::new(),
        infos: Vec::new(),
        stats: QueryStats::default(),
        memory: ResultMemory::default(),
    }
}

fn encoded(result: QueryResult, limit: usize, stats: bool) -> String {
    String::from_utf8(encode(result, limit, stats).expect("no limit").json).expect("JSON is UTF-8")
}

fn sample(labels: &[(&str, &str)], timestamp: i64, value: f64) -> InstantSample {
    InstantSample { labels: Labels::from_pairs(labels.iter().copied()), timestamp, value }
}

#[test]
fn every_kind_of_value() {
    let vector = Value::Vector(vec![
        sample(&[("job", "a<"), ("__name__", "up")], 1_435_781_451_781, 1.0),
        sample(&[], 1500, f64::NAN),
        sample(&[], -1, 1e-7),
    ]);
    let points = vec![(1500, 1.0), (2250, f64::INFINITY), (3000, -0.0)];
    let matrix = Value::Matrix(vec![RangeSeries { labels: Labels::empty(), points }]);
    for (value, expected) in [
        (
            Value::Scalar { timestamp: 1500, value: 1e21 },
            r#"{"resultType":"scalar","result":[1.5,"1000000000000000000000"]}"#,
        ),
        (
            Value::String { timestamp: 4000, value: "a<\u{8}\u{2028}".to_owned() },
            r#"{"resultType":"string","result":[4,"a\u003c\b\u2028"]}"#,
        ),
        (
            vector,
            concat!(
                r#"{"resultType":"vector","result":["#,
                r#"{"metric":{"__name__":"up","job":"a<"},"value":[1435781451.781,"1"]},"#,
                r#"{"metric":{},"value":[1.500,"NaN"]},{"metric":{},"value":[-0.001,"1e-07"]}]}"#
            ),
        ),
        (
            matrix,
            concat!(
                r#"{"resultType":"matrix","result":["#,
                r#"{"metric":{},"values":[[1.500,"1"],[2.250,"+Inf"],[3,"-0"]]}]}"#
            ),
        ),
        (Value::Vector(Vec::new()), r#"{"resultType":"vector","result":[]}"#),
        (Value::Matrix(Vec::new()), r#"{"resultType":"matrix","result":[]}"#),
    ] {
        assert_eq!(
            encoded(result(value), 0, false),
            format!("{{\"status\":\"success\",\"data\":{expected}}}")
        );
    }
}

#[test]
fn warnings_infos_and_the_limit() {
    let mut cut = result(Value::Vector(vec![sample(&[("a", "1")], 0, 1.0), sample(&[("a", "2")], 0, 1.0)]));
    cut.warnings.push("PromQL warning: \"x\" (1:10)".to_owned());
    cut.infos.push("PromQL info: <".to_owned());
    assert_eq!(
        encoded(cut.clone(), 1, false),
        concat!(
            r#"{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[0,"1"]}]},"#,
            r#""warnings":["PromQL warning: \"x\" (1:10)","results truncated due to limit"],"#,
            r#""infos":["PromQL info: \u003c"]}"#
        )
    );
    assert!(!encoded(cut, 2, false).contains("truncated"));
    let scalar = result(Value::Scalar { timestamp: 0, value: 1.0 });
    assert!(!encoded(scalar, 1, false).contains("truncated"));
}

#[test]
fn statistics_are_behind_the_result() {
    let mut result = result(Value::Scalar { timestamp: 0, value: 1.0 });
    result.stats = QueryStats {
        total_queryable_samples: 14,
        peak_samples: 3,
        queue_time: Duration::from_nanos(50),
        prepare_time: Duration::from_micros(20),
        eval_time: Duration::from_micros(1),
        ..QueryStats::default()
    };
    assert_eq!(
        encoded(result, 0, true),
        concat!(
            r#"{"status":"success","data":{"resultType":"scalar","result":[0,"1"],"stats":{"timings":{"#,
            r#""evalTotalTime":0.000021,"resultSortTime":0,"queryPreparationTime":0.00002,"innerEvalTime":0.000001,"#,
            r#""execQueueTime":5e-08,"execTotalTime":0.00002105},"#,
            r#""samples":{"totalQueryableSamples":14,"peakSamples":3}}}}"#
        )
    );
}
