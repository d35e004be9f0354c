//! The YAML of tests and of rules, as Prometheus has it; unknown keys are refused.

use std::{collections::BTreeMap, fs, path::Path};

use chronolith_model::parse_duration;
use serde::{Deserialize, Deserializer, de, de::DeserializeOwned};

use super::RuleTestError;

/// A file of tests.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TestFile {
    #[serde(default)]
    pub(super) rule_files: Vec<String>,
    #[serde(default = "minute", deserialize_with = "positive")]
    pub(super) evaluation_interval: Milliseconds,
    #[serde(default)]
    pub(super) group_eval_order: Vec<String>,
    #[serde(default)]
    pub(super) fuzzy_compare: bool,
    #[serde(default)]
    pub(super) tests: Vec<Test>,
}

/// One test: its data and what is asked of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Test {
    #[serde(default)]
    pub(super) name: String,
    #[serde(default = "minute", deserialize_with = "positive")]
    pub(super) interval: Milliseconds,
    #[serde(default)]
    pub(super) start_timestamp: Moment,
    #[serde(default)]
    pub(super) input_series: Vec<InputSeries>,
    #[serde(default)]
    pub(super) promql_expr_test: Vec<ExpressionTest>,
    #[serde(default)]
    pub(super) alert_rule_test: Vec<de::IgnoredAny>,
    /// For the templates of alerts.
    #[serde(default, rename = "external_labels")]
    _external_labels: BTreeMap<String, String>,
    #[serde(default, rename = "external_url")]
    _external_url: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct InputSeries {
    pub(super) series: String,
    pub(super) values: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpressionTest {
    pub(super) expr: String,
    #[serde(default)]
    pub(super) eval_time: Milliseconds,
    #[serde(default)]
    pub(super) exp_samples: Vec<ExpectedSample>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ExpectedSample {
    #[serde(default)]
    pub(super) labels: String,
    #[serde(default)]
    pub(super) value: f64,
    #[serde(default)]
    pub(super) histogram: String,
}

/// A file of rules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleFile {
    #[serde(default)]
    pub(super) groups: Vec<RuleGroup>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RuleGroup {
    pub(super) name: String,
    /// All groups are evaluated at the test's interval.
    #[serde(default, rename = "interval")]
    _interval: Option<Milliseconds>,
    #[serde(default)]
    pub(super) query_offset: Milliseconds,
    #[serde(default)]
    pub(super) limit: usize,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) rules: Vec<Rule>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rule {
    #[serde(default)]
    pub(super) record: String,
    #[serde(default)]
    pub(super) alert: String,
    pub(super) expr: String,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default, rename = "for")]
    _for: Milliseconds,
    #[serde(default, rename = "keep_firing_for")]
    _keep_firing_for: Milliseconds,
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

/// A duration as PromQL writes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Milliseconds(pub(super) i64);

impl<'de> Deserialize<'de> for Milliseconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let needed = || de::Error::custom(format!("{text:?} is no duration: 30s, 5m, 1h30m, or 0 are"));
        let milliseconds = if text == "0" { Some(0) } else { parse_duration(&text) };
        milliseconds.map(Self).ok_or_else(needed)
    }
}

const fn minute() -> Milliseconds {
    Milliseconds(60_000)
}

/// A duration above 0; 0 means the default, as there.
fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Milliseconds, D::Error> {
    let duration = Milliseconds::deserialize(deserializer)?;
    Ok(if duration.0 == 0 { minute() } else { duration })
}

/// Milliseconds since 1970, from Unix seconds or RFC 3339.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Moment(pub(super) i64);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let seconds = text.parse::<f64>().ok().filter(|seconds| seconds.is_finite());
        let milliseconds = seconds.map(|seconds| (seconds * 1e3).round() as i64);
        let rfc = || Some(text.parse::<jiff::Timestamp>().ok()?.as_millisecond());
        let needed = || de::Error::custom(format!("{text:?} is no time: Unix seconds or RFC 3339 are"));
        milliseconds.or_else(rfc).map(Self).ok_or_else(needed)
    }
}

impl TestFile {
    /// Reads the file of tests `path`.
    pub(super) fn read(path: &Path) -> Result<Self, RuleTestError> {
        read(path)
    }
}

impl RuleFile {
    /// Reads the file of rules `path`.
    pub(super) fn read(path: &Path) -> Result<Self, RuleTestError> {
        read(path)
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, RuleTestError> {
    let shown = || path.display().to_string();
    let text = fs::read_to_string(path).map_err(|source| RuleTestError::Read { path: shown(), source })?;
    serde_saphyr::from_str(&text)
        .map_err(|error| RuleTestError::Malformed { path: shown(), text: error.to_string() })
}
