//! What stands beside the samples of a series: exemplars, and the metadata of its metric.

use std::fmt::Write as _;

use chronolith_model::{Exemplar, Labels, MetricMetadata};
use serde::Serialize;

use super::lines::{LabelMap, Number, write_quoted, write_series};

/// An exemplar.
#[derive(Debug, Serialize)]
pub(super) struct JsonExemplar<'a> {
    labels: LabelMap<'a>,
    value: Number,
    timestamp: i64,
}

/// Metadata of a metric.
#[derive(Debug, Serialize)]
pub(super) struct JsonMetadata<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    unit: &'a str,
    help: &'a str,
}

/// What stands beside the samples of one series.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beside<'a> {
    pub(super) exemplars: &'a [Exemplar],
    /// With the first series of the metric.
    pub(super) metadata: Option<&'a MetricMetadata>,
}

impl<'a> Beside<'a> {
    pub(super) fn exemplars(&self) -> Vec<JsonExemplar<'a>> {
        let exemplar = |of: &'a Exemplar| JsonExemplar {
            labels: LabelMap(&of.labels),
            value: Number(of.value),
            timestamp: of.timestamp,
        };
        self.exemplars.iter().map(exemplar).collect()
    }

    pub(super) fn metadata(&self) -> Option<JsonMetadata<'a>> {
        let of = self.metadata?;
        Some(JsonMetadata { kind: of.kind.as_str(), unit: &of.unit, help: &of.help })
    }

    /// Appends the lines of the text format that come before the samples: what is known of the metric.
    ///
    /// # Errors
    /// None that could be met: that of text in memory.
    pub(super) fn text_before(&self, out: &mut String) -> std::fmt::Result {
        let Some(MetricMetadata { metric, kind, unit, help }) = self.metadata else { return Ok(()) };
        if !help.is_empty() {
            writeln!(out, "# HELP {metric} {}", help.replace('\\', "\\\\").replace('\n', "\\n"))?;
        }
        writeln!(out, "# TYPE {metric} {}", kind.as_str())?;
        if !unit.is_empty() {
            writeln!(out, "# UNIT {metric} {unit}")?;
        }
        Ok(())
    }

    /// Appends those that come behind: exemplars, as comments.
    ///
    /// # Errors
    /// None that could be met: that of text in memory.
    pub(super) fn text_behind(&self, series: &Labels, out: &mut String) -> std::fmt::Result {
        for exemplar in self.exemplars {
            out.push_str("# exemplar ");
            write_series(series, out)?;
            out.push_str(" {");
            let mut separator = "";
            for (name, value) in &exemplar.labels {
                write!(out, "{separator}{name}=")?;
                write_quoted(value, out);
                separator = ",";
            }
            out.push_str("} ");
            chronolith_model::float::write_general(out, exemplar.value);
            writeln!(out, " {}", exemplar.timestamp)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chronolith_model::MetricType;

    use super::*;

    #[test]
    fn lines() {
        let exemplars =
            [Exemplar { labels: Labels::from_pairs([("trace_id", "a\"b")]), value: 0.5, timestamp: 7 }];
        let metadata = MetricMetadata {
            metric: "m".to_owned(),
            kind: MetricType::Counter,
            unit: "bytes".to_owned(),
            help: "one\ntwo".to_owned(),
        };
        let beside = Beside { exemplars: &exemplars, metadata: Some(&metadata) };
        let mut out = String::new();
        beside.text_before(&mut out).expect("text");
        let series = Labels::from_pairs([("__name__", "m"), ("x", "1")]);
        beside.text_behind(&series, &mut out).expect("text");
        let want = "# HELP m one\\ntwo\n# TYPE m counter\n# UNIT m bytes\n# exemplar m{x=\"1\"} {trace_id=\"a\\\"b\"} 0.5 7\n";
        assert_eq!(out, want);
        let json = serde_json::to_string(&(beside.exemplars(), beside.metadata())).expect("JSON");
        let want = r#"[[{"labels":{"trace_id":"a\"b"},"value":0.5,"timestamp":7}],{"type":"counter","unit":"bytes","help":"one\ntwo"}]"#;
        assert_eq!(json, want);
    }
}
