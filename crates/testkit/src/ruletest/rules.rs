//! Recording rules, evaluated over time.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
};

use chronolith_model::{Labels, METRIC_NAME, Timestamp, stale_nan};
use chronolith_promql::{Engine, EngineOptions, InstantSample, SampleValue};

use super::{
    RuleTestError, Stage,
    file::{RuleFile, RuleGroup, TestFile},
};
use crate::promqltest::{
    run::Batch,
    series::{ScriptHistogram, SeriesLine, SeriesValue},
};

/// Rules that are evaluated one after the other.
#[derive(Debug)]
pub(super) struct Group {
    /// Identifies it among all groups of the test.
    id: usize,
    query_offset: i64,
    limit: usize,
    recording: Vec<Recording>,
}

#[derive(Debug)]
struct Recording {
    record: String,
    expr: String,
    labels: Vec<(String, String)>,
}

/// What rules made at the evaluation before: series that are gone get a stale marker.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// By group and rule.
    before: std::collections::HashMap<(usize, usize), HashSet<Labels>>,
}

/// The groups of the rule files of `tests`, which stands in `path`, in the order they are evaluated. All expressions are
/// well-formed.
pub(super) fn read(
    path: &Path,
    tests: &TestFile,
    options: &EngineOptions,
) -> Result<Vec<Group>, RuleTestError> {
    let engine = Engine::new(options.clone());
    let dir = path.parent().unwrap_or(Path::new("."));
    let mut named: Vec<(String, Group)> = Vec::new();
    for pattern in &tests.rule_files {
        for file in matching(&dir.join(pattern))? {
            let of_file = |text: String| RuleTestError::Malformed { path: file.display().to_string(), text };
            for group in RuleFile::read(&file)?.groups {
                let name = group.name.clone();
                let id = named.len();
                let group =
                    checked(group, id, &engine).map_err(|text| of_file(format!("group {name:?}: {text}")))?;
                named.push((name, group));
            }
        }
    }
    if !tests.group_eval_order.is_empty() {
        let place = |name: &str| tests.group_eval_order.iter().position(|known| known == name);
        if let Some((name, _)) = named.iter().find(|(name, _)| place(name).is_none()) {
            let text = format!("group_eval_order: group {name:?} is missing");
            return Err(RuleTestError::Malformed { path: path.display().to_string(), text });
        }
        named.sort_by_key(|(name, _)| place(name));
    }
    Ok(named.into_iter().map(|(_, group)| group).collect())
}

/// The files that `pattern`, which may have a `*` in its last part, stands for.
fn matching(pattern: &Path) -> Result<Vec<PathBuf>, RuleTestError> {
    let last = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let Some((front, behind)) = last.split_once('*') else { return Ok(vec![pattern.to_owned()]) };
    let dir = pattern.parent().unwrap_or(Path::new("."));
    let unread = |source| RuleTestError::Read { path: dir.display().to_string(), source };
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).map_err(unread)? {
        let entry = entry.map_err(unread)?;
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        if name.len() >= front.len() + behind.len() && name.starts_with(front) && name.ends_with(behind) {
            files.push(entry.path());
        }
    }
    files.sort();
    if files.is_empty() {
        let text = "no file has such a name".to_owned();
        return Err(RuleTestError::Malformed { path: pattern.display().to_string(), text });
    }
    Ok(files)
}

fn checked(group: RuleGroup, id: usize, engine: &Engine) -> Result<Group, String> {
    let mut recording = Vec::new();
    for rule in group.rules {
        let name = if rule.record.is_empty() { &rule.alert } else { &rule.record };
        engine.parse(&rule.expr).map_err(|error| format!("rule {name:?}: {error}"))?;
        match (rule.record.is_empty(), rule.alert.is_empty()) {
            (true, true) => return Err("a rule has neither `record` nor `alert`".to_owned()),
            (false, false) => return Err(format!("rule {name:?} has both `record` and `alert`")),
            // Alerts are not evaluated.
            (true, false) => continue,
            (false, true) => {}
        }
        let mut labels: Vec<(String, String)> = group.labels.clone().into_iter().collect();
        labels.extend(rule.labels);
        recording.push(Recording { record: rule.record, expr: rule.expr, labels });
    }
    Ok(Group { id, query_offset: group.query_offset.0, limit: group.limit, recording })
}

impl Recorder {
    /// Evaluates all rules of `group` at `time`, each after the samples of the one before are stored.
    pub(super) fn evaluate(&mut self, group: &Group, stage: &Stage, time: Timestamp) -> Result<(), String> {
        for (index, rule) in group.recording.iter().enumerate() {
            let wrong = |error: String| format!("rule {:?}: {error}", rule.record);
            let time = time.saturating_sub(group.query_offset);
            let vector = stage.ask(&rule.expr, time).map_err(wrong)?;
            if group.limit > 0 && vector.len() > group.limit {
                return Err(wrong(format!("exceeded limit of {} with {} series", group.limit, vector.len())));
            }
            let mut batch = Batch::default();
            let mut now = HashSet::new();
            for sample in vector {
                let series = recorded(rule, sample);
                if !now.insert(series.labels.clone()) {
                    let text = "vector contains metrics with the same labelset after applying rule labels";
                    return Err(wrong(text.to_owned()));
                }
                stage.add(&mut batch, &series, time, 1).map_err(wrong)?;
            }
            let before = self.before.entry((group.id, index)).or_default();
            for labels in before.difference(&now) {
                let gone =
                    SeriesLine { labels: labels.clone(), values: vec![SeriesValue::Float(stale_nan())] };
                stage.add(&mut batch, &gone, time, 1).map_err(wrong)?;
            }
            *before = now;
            stage.append(batch).map_err(wrong)?;
        }
        Ok(())
    }
}

/// The series of a result under the name and labels of its rule.
fn recorded(rule: &Recording, sample: InstantSample) -> SeriesLine {
    let mut labels = sample.labels.to_builder();
    labels.set(METRIC_NAME, rule.record.as_str());
    for (name, value) in &rule.labels {
        labels.set(name.as_str(), value.as_str());
    }
    let value = match sample.value {
        SampleValue::Float(value) => SeriesValue::Float(value),
        SampleValue::Histogram(histogram) => {
            SeriesValue::Histogram(ScriptHistogram { histogram, hint_given: true })
        }
    };
    SeriesLine { labels: labels.build(), values: vec![value] }
}
