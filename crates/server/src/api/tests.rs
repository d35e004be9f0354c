//! Encoding of results; the texts are those of Prometheus 3.5.3.

use std::{sync::Arc, time::Duration};

use chronolith_model::{FloatHistogram, Labels, histogram::HistogramLiteral};
use chronolith_promql::{
    InstantSample, QueryResult, QueryStats, RangeSeries, ResultMemory, SampleValue, Value,
};

use super::query::{Asked, Statistics, encode};

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
    let stats = if stats { Statistics::Totals } else { Statistics::None };
    let asked = Asked { limit, stats, ..Asked::default() };
    String::from_utf8(encode(result, asked, None).expect("no limit").json).expect("JSON is UTF-8")
}

fn sample(labels: &[(&str, &str)], timestamp: i64, value: f64) -> InstantSample {
    InstantSample {
        labels: Labels::from_pairs(labels.iter().copied()),
        timestamp,
        value: SampleValue::Float(value),
    }
}

#[test]
fn every_kind_of_value() {
    let vector = Value::Vector(vec![
        sample(&[("job", "a<"), ("__name__", "up")], 1_435_781_451_781, 1.0),
        sample(&[], 1500, f64::NAN),
        sample(&[], -1, 1e-7),
    ]);
    let points = vec![(1500, 1.0), (2250, f64::INFINITY), (3000, -0.0)];
    let matrix = Value::Matrix(vec![RangeSeries { labels: Labels::empty(), points, histograms: Vec::new() }]);
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

fn histogram(literal: &str) -> Arc<FloatHistogram> {
    Arc::new(HistogramLiteral::parse(literal).expect("a literal").histogram)
}

#[test]
fn histograms_beside_floats() {
    let h = histogram("{{count:14 sum:30.5 z_bucket:2 z_bucket_w:0.001 buckets:[1 0 1e21] n_buckets:[2]}}");
    let custom = histogram("{{schema:-53 count:3 sum:NaN custom_values:[0.5 2] buckets:[1 0 2]}}");
    let written = concat!(
        r#"{"count":"14","sum":"30.5","buckets":[[1,"-1","-0.5","2"],[3,"-0.001","0.001","2"],"#,
        r#"[0,"0.5","1","1"],[0,"2","4","1e+21"]]}"#
    );
    let written_custom = r#"{"count":"3","sum":"NaN","buckets":[[3,"-Inf","0.5","1"],[0,"2","+Inf","2"]]}"#;
    let mut vector = vec![sample(&[("a", "1")], 3000, 1.0), sample(&[], 3000, 1.0)];
    vector[1].value = SampleValue::Histogram(Arc::clone(&h));
    let series = |points: Vec<(i64, f64)>, histograms| RangeSeries {
        labels: Labels::from_pairs([("__name__", "h")]),
        points,
        histograms,
    };
    let matrix = vec![
        series(vec![(1000, 1.5)], vec![(2000, h), (3500, histogram("{{}}"))]),
        series(Vec::new(), vec![(2000, custom)]),
    ];
    for (value, expected) in [
        (
            Value::Vector(vector),
            format!(
                r#""vector","result":[{{"metric":{{"a":"1"}},"value":[3,"1"]}},{{"metric":{{}},"histogram":[3,{written}]}}]"#
            ),
        ),
        (
            Value::Matrix(matrix),
            format!(
                r#""matrix","result":[{{"metric":{{"__name__":"h"}},"values":[[1,"1.5"]],"histograms":[[2,{written}],[3.500,{{"count":"0","sum":"0"}}]]}},{{"metric":{{"__name__":"h"}},"histograms":[[2,{written_custom}]]}}]"#
            ),
        ),
    ] {
        assert_eq!(
            encoded(result(value), 0, false),
            format!("{{\"status\":\"success\",\"data\":{{\"resultType\":{expected}}}}}")
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
