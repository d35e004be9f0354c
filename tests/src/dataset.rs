//! The recorded hour of real series, read once into memory.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::remote_write::LabelMap;

/// Name of the recording inside the data directory.
pub const FILE_NAME: &str = "exporters-1h.jsonl.zst";

/// One recorded series; `timestamps` (ms) and `values` have equal length.
#[derive(Debug, Clone)]
pub struct RecordedSeries {
    /// Its labels, `__name__` included.
    pub labels: LabelMap,
    /// Scrape times in ms.
    pub timestamps: Vec<i64>,
    /// The values.
    pub values: Vec<f64>,
}

/// Reads all series, or the first `limit`.
///
/// # Errors
/// The file is missing or not what its description says, with the line.
pub fn load(dir: &Path, limit: usize) -> Result<Vec<RecordedSeries>> {
    let path = dir.join(FILE_NAME);
    let file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let reader = BufReader::new(zstd::Decoder::new(file)?);
    let mut all = Vec::new();
    for (i, line) in reader.lines().take(limit).enumerate() {
        let line = line.with_context(|| format!("read {}", path.display()))?;
        all.push(parse(&line).with_context(|| format!("{} line {}", path.display(), i + 1))?);
    }
    Ok(all)
}

fn parse(line: &str) -> Result<RecordedSeries> {
    let root: Value = serde_json::from_str(line)?;
    let labels = root["metric"]
        .as_object()
        .context("no metric")?
        .iter()
        .map(|(n, v)| (n.clone(), v.as_str().unwrap_or_default().to_owned()))
        .collect();
    let timestamps: Vec<i64> =
        root["timestamps"].as_array().context("no timestamps")?.iter().filter_map(Value::as_i64).collect();
    let values: Vec<f64> = root["values"].as_array().context("no values")?.iter().filter_map(float).collect();
    anyhow::ensure!(timestamps.len() == values.len(), "timestamps and values differ in length");
    Ok(RecordedSeries { labels, timestamps, values })
}

fn float(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| value.as_str().and_then(|s| s.parse().ok()))
}
