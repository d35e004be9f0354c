//! Reads the recorded series that tests and benches replay: lines of
//! `{"metric": {labels}, "values": [...], "timestamps": [ms, ...]}`, zstd-compressed, NaN and infinities as strings.
//!
//! A [`Recording`] streams: it holds one line at a time, whatever the size of the file.

use std::{
    collections::BTreeMap,
    fmt,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use chronolith_model::{Labels, Sample, Timestamp};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use crate::paths::from_env;

/// Longest line, in bytes.
pub const LINE_BYTES_MAX: u64 = 64 << 20;

/// The file in [`data_dir`].
pub const RECORDING_FILE: &str = "exporters-1h.jsonl.zst";

/// A series with its samples, sorted by time.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordedSeries {
    /// Its labels.
    pub labels: Labels,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// How a recording is replayed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Each series is returned so often; copy `i` > 0 has `-i` appended to its `instance`. At least 1.
    pub instances: u32,
    /// Seconds between scrapes in the recording become so many seconds; the millisecond jitter stays as it is. At
    /// least 1.
    pub spread: u32,
    /// Copy `i` starts `i` times so many milliseconds (of the recording) later and wraps around at its end, so that
    /// copies differ; counters are reset where it wraps. 0 or more; at 0 nothing wraps.
    pub shift: i64,
}

impl Default for Replay {
    /// As recorded.
    fn default() -> Self {
        Self { instances: 1, spread: 1, shift: 0 }
    }
}

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// The file cannot be read.
    #[error("{path}: read failed")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not what it should be.
    #[error("{path}:{line}: {problem}")]
    Line {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
}

/// The directory of recorded data: `CHRONOLITH_DATA`, or `../shared/data` beside the workspace. `None` if it has no
/// recording.
#[must_use]
pub fn data_dir() -> Option<PathBuf> {
    let dir = from_env("CHRONOLITH_DATA", "../shared/data");
    dir.join(RECORDING_FILE).is_file().then_some(dir)
}

/// An open recording: an iterator over its series in the order of the file, the copies of a series one after another.
#[derive(Debug)]
pub struct Recording<R = zstd::Decoder<'static, BufReader<File>>> {
    reader: BufReader<R>,
    path: PathBuf,
    line: u64,
    replay: Replay,
    /// The line read last, of which `copies_left` copies are still to be returned.
    current: Option<RecordedSeries>,
    copies_left: u32,
    /// First and last time of the first line; the recording is taken to begin and end there.
    span: Option<(Timestamp, Timestamp)>,
}

impl Recording {
    /// Opens the zstd-compressed recording at `path`.
    ///
    /// # Errors
    /// [`DataError::Io`].
    pub fn open(path: &Path, replay: Replay) -> Result<Self, DataError> {
        let file = File::open(path).and_then(zstd::Decoder::new);
        let file = file.map_err(|source| DataError::Io { path: path.to_owned(), source })?;
        Ok(Self::new(file, path.to_owned(), replay))
    }
}

impl<R: Read> Recording<R> {
    /// A recording read from uncompressed lines; `path` names it in errors.
    pub fn new(reader: R, path: PathBuf, replay: Replay) -> Self {
        let reader = BufReader::with_capacity(1 << 20, reader);
        Self { reader, path, line: 0, replay, current: None, copies_left: 0, span: None }
    }

    fn read_line(&mut self) -> Result<Option<RecordedSeries>, DataError> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut bytes);
        let length = read.map_err(|source| DataError::Io { path: self.path.clone(), source })?;
        if length == 0 {
            return Ok(None);
        }
        self.line += 1;
        let invalid = |problem| DataError::Line { path: self.path.clone(), line: self.line, problem };
        if length as u64 == LINE_BYTES_MAX && bytes.last() != Some(&b'\n') {
            return Err(invalid(format!("longer than {LINE_BYTES_MAX} bytes")));
        }
        let line: Line = serde_json::from_slice(&bytes).map_err(|error| invalid(error.to_string()))?;
        if line.values.len() != line.timestamps.len() {
            let (values, timestamps) = (line.values.len(), line.timestamps.len());
            return Err(invalid(format!("{values} values, {timestamps} timestamps")));
        }
        if let Some(i) = line.timestamps.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(invalid(format!("timestamp {} is not before its successor", line.timestamps[i])));
        }
        let samples = line.timestamps.iter().zip(&line.values);
        let samples = samples.map(|(timestamp, value)| Sample::new(*timestamp, value.0)).collect();
        Ok(Some(RecordedSeries { labels: Labels::from_pairs(line.metric), samples }))
    }
}

impl<R: Read> Iterator for Recording<R> {
    type Item = Result<RecordedSeries, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.copies_left == 0 {
            self.current = match self.read_line() {
                Ok(line) => Some(line?),
                Err(error) => return Some(Err(error)),
            };
            self.copies_left = self.replay.instances.max(1);
        }
        let copy = self.replay.instances.max(1) - self.copies_left;
        self.copies_left -= 1;
        let series = self.current.as_ref()?;
        let bounds = series.samples.first().zip(series.samples.last());
        let span = *self
            .span
            .get_or_insert(bounds.map_or((0, 0), |(first, last)| (first.timestamp, last.timestamp)));
        Some(Ok(self.replay.copy(series, copy, span)))
    }
}

impl Replay {
    /// Copy `copy` of a series of a recording that begins and ends at `span`.
    fn copy(&self, series: &RecordedSeries, copy: u32, span: (Timestamp, Timestamp)) -> RecordedSeries {
        let labels = match series.labels.get("instance") {
            Some(instance) if copy > 0 => {
                let instance = format!("{instance}-{copy}");
                series.labels.to_builder().set("instance", instance).build()
            }
            None if copy > 0 => series.labels.to_builder().set("instance", format!("copy-{copy}")).build(),
            _ => series.labels.clone(),
        };
        let (begin, end) = span;
        // One more second than the span, so that the first scrape follows the last at the usual distance.
        let length = (end - begin) / 1000 * 1000 + 1000;
        let shift = (self.shift.max(0) * i64::from(copy) / 1000 * 1000).rem_euclid(length);
        // Series that begin or end outside the first one's span wrap around only where the copy does.
        let wrapped = |since: i64| if shift == 0 { since } else { (since - shift).rem_euclid(length) };
        let spread = i64::from(self.spread.max(1));
        let mut samples: Vec<Sample> = series
            .samples
            .iter()
            .map(|sample| {
                let since = wrapped(sample.timestamp - begin);
                // The nearest whole second is the scrape's nominal time, the rest its jitter.
                let nominal = (since + 500).div_euclid(1000) * 1000;
                Sample::new(begin + nominal * spread + (since - nominal), sample.value)
            })
            .collect();
        samples.sort_by_key(|sample| sample.timestamp);
        samples.dedup_by_key(|sample| sample.timestamp);
        RecordedSeries { labels, samples }
    }
}

#[derive(Deserialize)]
struct Line {
    metric: BTreeMap<String, String>,
    values: Vec<Value>,
    timestamps: Vec<Timestamp>,
}

/// A number, or the name of one that JSON cannot write.
struct Value(f64);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor).map(Self)
    }
}

struct ValueVisitor;

impl Visitor<'_> for ValueVisitor {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, \"NaN\", \"+Inf\" or \"-Inf\"")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => Ok(f64::NAN),
            "+Inf" | "Inf" => Ok(f64::INFINITY),
            "-Inf" => Ok(f64::NEG_INFINITY),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = concat!(
        r#"{"metric":{"__name__":"a","instance":"h:1"},"values":[1,2.5,"NaN",4],"timestamps":[60007,61001,61990,63000]}"#,
        "\n",
        r#"{"metric":{"__name__":"b"},"values":["+Inf","-Inf"],"timestamps":[59998,63000]}"#,
        "\n"
    );

    fn read(text: &str, replay: Replay) -> Result<Vec<RecordedSeries>, DataError> {
        Recording::new(text.as_bytes(), PathBuf::from("test"), replay).collect()
    }

    fn times(series: &RecordedSeries) -> Vec<Timestamp> {
        series.samples.iter().map(|sample| sample.timestamp).collect()
    }

    #[test]
    fn as_recorded() {
        let all = read(TEXT, Replay::default()).expect("valid");
        assert_eq!(all.len(), 2);
        assert_eq!(all[0].labels.to_string(), r#"{__name__="a", instance="h:1"}"#);
        assert_eq!(times(&all[0]), [60007, 61001, 61990, 63000]);
        assert!(all[0].samples[2].value.is_nan());
        assert_eq!(
            all[1].samples,
            [Sample::new(59998, f64::INFINITY), Sample::new(63000, f64::NEG_INFINITY)]
        );
    }

    #[test]
    fn spread_keeps_the_jitter() {
        let all = read(TEXT, Replay { spread: 15, ..Replay::default() }).expect("valid");
        // 994, 1983 and 2993 ms after the first scrape: jitter -6, -17, -7.
        assert_eq!(times(&all[0]), [60007, 60007 + 15_000 - 6, 60007 + 30_000 - 17, 60007 + 45_000 - 7]);
        // What begins before the first series stays in front.
        assert_eq!(times(&all[1]), [59998, 60007 + 45_000 - 7]);
    }

    #[test]
    fn copies_differ_in_instance_and_offset() {
        let all = read(TEXT, Replay { instances: 2, shift: 1000, ..Replay::default() }).expect("valid");
        let names: Vec<_> = all.iter().map(|series| series.labels.get("instance").unwrap_or("-")).collect();
        assert_eq!(names, ["h:1", "h:1-1", "-", "copy-1"]);
        let values: Vec<_> = all[1].samples.iter().map(|sample| sample.value.to_string()).collect();
        // The span is 2993 ms, so the cycle 3 s: the sample at 994 ms lands 6 ms before the end.
        assert_eq!(values, ["NaN", "4", "1", "2.5"]);
        assert!(times(&all[1]).is_sorted());
    }

    #[test]
    fn damage_is_named_with_its_line() {
        let short = TEXT.replacen("2.5,", "", 1);
        let error = read(&short, Replay::default()).expect_err("lengths differ").to_string();
        assert_eq!(error, "test:1: 3 values, 4 timestamps");
        let odd = TEXT.replace("\"-Inf\"", "\"many\"");
        assert!(read(&odd, Replay::default()).expect_err("no number").to_string().starts_with("test:2: "));
        let back = TEXT.replacen("61001", "59000", 1);
        assert!(read(&back, Replay::default()).expect_err("unsorted").to_string().contains("60007"));
    }
}
