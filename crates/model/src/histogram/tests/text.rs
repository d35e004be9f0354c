//! Literals and texts.

use proptest::prelude::*;

use super::super::*;
use super::algebra::{literal, observed};

#[test]
fn literals_stand_for_sequences() {
    let all = |text| -> Vec<String> {
        let literal = HistogramLiteral::parse(text).unwrap();
        literal.histograms().unwrap().iter().map(FloatHistogram::to_literal).collect()
    };
    assert_eq!(all("{{count:2 sum:1.5}}"), ["{{count:2 sum:1.5}}"]);
    assert_eq!(all("{{ }}x2"), ["{{}}"; 3]);
    assert_eq!(
        all(
            "{{schema:-1 sum:4 count:1 buckets:[1] offset:1}}+{{schema:0 sum:4 count:4 buckets:[2 2] offset:1}}x1"
        ),
        [
            "{{schema:-1 count:1 sum:4 offset:1 buckets:[1]}}",
            "{{schema:-1 count:5 sum:8 offset:1 buckets:[5]}}"
        ]
    );
    assert_eq!(
        all("{{count:4 buckets:[4]}}-{{count:1 buckets:[1]}}x2"),
        ["{{count:4 buckets:[4]}}", "{{count:3 buckets:[3]}}", "{{count:2 buckets:[2]}}"]
    );
}

#[test]
fn every_key_of_a_literal() {
    let text = "{{schema:3 count:7 sum:-2.5 z_bucket:1 z_bucket_w:0.25 counter_reset_hint:not_reset offset:-2 \
                buckets:[1 0 2] n_offset:4 n_buckets:[3]}}";
    let parsed = HistogramLiteral::parse(text).unwrap();
    assert!(parsed.hint_given);
    let histogram = parsed.histogram;
    assert_eq!(histogram.to_literal(), text);
    assert_eq!(histogram.hint(), CounterResetHint::NotReset);
    assert_eq!(
        (histogram.positive_buckets(), histogram.negative_buckets()),
        (&[1.0, 0.0, 2.0][..], &[3.0][..])
    );
    let custom = "{{schema:-53 count:NaN sum:+Inf custom_values:[-1.5 2] buckets:[1 -2]}}";
    assert_eq!(literal(custom).to_literal(), custom);
    let both = HistogramLiteral::parse("{{counter_reset_hint:gauge}}+{{count:1}}x1").unwrap();
    assert!(!both.hint_given, "the second says");
    assert_eq!(both.histograms().unwrap()[1].hint(), CounterResetHint::Gauge);
}

#[test]
fn bad_literals_are_refused() {
    let error = |text: &str| HistogramLiteral::parse(text).unwrap_err();
    for text in ["", "{}", "{{count:1", "{{}}x", "{{}}y", "{{}}+{{}}", "{{}}+{{}", "{{}}x-1"] {
        assert!(matches!(error(text), LiteralError::Form(_)), "{text}");
    }
    for text in [
        "{{count}}",
        "{{count:}}",
        "{{buckets:[1}}",
        "{{buckets:[a]}}",
        "{{buckets:1}}",
        "{{colour:1}}",
        "{{counter_reset_hint:maybe}}",
        "{{buckets:[1]sum:2}}",
        "{{schema:1.5}}",
    ] {
        assert!(matches!(error(text), LiteralError::Item(_)), "{text}");
    }
    assert_eq!(error("{{sum:1 sum:2}}"), LiteralError::Duplicate("sum".to_owned()));
    assert_eq!(error("{{schema:9}}"), LiteralError::Histogram(HistogramError::Schema(9)));
    assert_eq!(error("{{schema:1}}+{{schema:0}}x1"), LiteralError::Increment);
    assert_eq!(error("{{schema:-53}}+{{schema:0}}x1"), LiteralError::Increment);
    assert_eq!(error("{{}}x1000000"), LiteralError::TooMany);
}

#[test]
fn texts_are_those_of_prometheus() {
    assert_eq!(
        literal("{{count:5 sum:18.4 z_bucket:2 z_bucket_w:0.001 buckets:[0 1] n_buckets:[2 1]}}").to_string(),
        "{count:5, sum:18.4, [-2,-1):1, [-1,-0.5):2, [-0.001,0.001]:2, (1,2]:1}"
    );
    assert_eq!(
        literal("{{count:1e6 sum:NaN z_bucket:-1 z_bucket_w:2}}").to_string(),
        "{count:1e+06, sum:NaN, [-2,2]:-1}"
    );
    assert_eq!(
        literal("{{schema:-53 count:3 custom_values:[2] buckets:[1 2]}}").to_string(),
        "{count:3, sum:0, [-Inf,2]:1, (2,+Inf]:2}"
    );
    // Buckets are shown where they are, also where the zero bucket reaches into them.
    assert_eq!(literal("{{count:1 z_bucket_w:0.75 buckets:[1]}}").to_string(), "{count:1, sum:0, (0.5,1]:1}");
}

proptest! {
    #[test]
    fn literals_are_read_back(histogram in observed()) {
        let read = literal(&histogram.to_literal());
        prop_assert!(read.close_to(&histogram, |a, b| a.to_bits() == b.to_bits()));
    }

    #[test]
    fn reading_never_panics(text in "(\\{\\{)?[a-z_:\\[\\] 0-9.+-]{0,40}(\\}\\})?[x+0-9]{0,4}") {
        let _ = HistogramLiteral::parse(&text);
    }
}
