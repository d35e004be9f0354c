//! Reading all records of a log.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use anyhow::Context as _;
use chronolith_env::Fs;
use chronolith_wal::inspect::{Content, Entry, EntryStatus, RecordInfo, Segment};
use chronolith_wal::{DamageReason, RecordType};

use super::super::progress::Progress;
use super::filter::Filter;
use super::report::{Place, Report, SegmentReport, State, Totals};
use super::segments::{Found, Segments};
use super::shown;

/// At most this many series are told apart; beyond, the count stays.
const COUNTED_SERIES_MAX: usize = 1 << 24;

/// A look at all records.
pub(super) struct Scan<'a> {
    fs: &'a dyn Fs,
    filter: Option<Filter>,
    series: Option<SeriesCount>,
    /// Per stream of records and shard, the last number that counted: a record that is there twice counts once.
    last_seq: HashMap<(Stream, Option<u16>), u64>,
    report: Report,
}

/// Records that are read in one pass of a replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Stream {
    Definitions,
    Samples,
}

/// Series told apart by their refs.
#[derive(Debug, Default)]
struct SeriesCount {
    all: HashSet<u32>,
    segment: HashSet<u32>,
}

impl SeriesCount {
    fn define(&mut self, series: u32) {
        for set in [&mut self.all, &mut self.segment] {
            if set.len() < COUNTED_SERIES_MAX {
                set.insert(series);
            }
        }
    }
}

impl<'a> Scan<'a> {
    pub(super) fn new(fs: &'a dyn Fs, dir: &Path, filter: Option<Filter>, series: bool) -> Self {
        let report = Report {
            directory: shown(dir),
            segments: Vec::new(),
            total: Totals::default(),
            damage: Vec::new(),
            damage_count: 0,
            unfinished: None,
            matching_series: None,
        };
        let series = series.then(SeriesCount::default);
        Self { fs, filter, series, last_seq: HashMap::new(), report }
    }

    /// Reads `segments`.
    ///
    /// # Errors
    /// When more series match than can be told apart. What cannot be read is damage, not an error.
    pub(super) fn run(mut self, segments: &Segments) -> anyhow::Result<Report> {
        for place in &segments.damage {
            self.report.damaged(place.clone());
        }
        let passes = 1 + u64::from(self.filter.is_some());
        let progress = Progress::of_bytes("reading the log", passes * segments.bytes());
        let mut done = 0;
        if self.filter.is_some() {
            // A series may be defined behind its samples: definitions first.
            for found in &segments.found {
                self.definitions(found, &|bytes| progress.reach(done + bytes))?;
                done += found.end;
            }
        }
        for found in &segments.found {
            self.segment(found, &|bytes| progress.reach(done + bytes))?;
            done += found.end;
        }
        let Self { filter, series, mut report, .. } = self;
        report.total.series = series.map(|series| series.all.len() as u64);
        if filter.is_none() {
            report.total.bytes_per_sample = per_sample(&report.total);
        }
        if let Some(filter) = filter.filter(Filter::lists) {
            report.matching_series = Some(filter.into_series().into_iter().map(Into::into).collect());
        }
        Ok(report)
    }

    /// Opens a segment whose records count.
    fn open(&self, found: &Found) -> Option<chronolith_wal::Result<Segment>> {
        (found.summary.is_some() && !found.void).then(|| Segment::open(self.fs, &found.path))
    }

    /// Takes in the definitions of matching series.
    fn definitions(&mut self, found: &Found, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let (Some(Ok(segment)), Some(filter)) = (self.open(found), &mut self.filter) else { return Ok(()) };
        for entry in segment.entries().take_while(|entry| entry.offset < found.end) {
            progress(entry.offset + entry.bytes);
            let EntryStatus::Record(RecordInfo { record_type: Some(RecordType::Series), .. }) = entry.status
            else {
                continue;
            };
            let mut result = Ok(true);
            let read = segment.content(&entry, &mut |content| {
                if let (Content::Series(definition), true) = (content, result.is_ok()) {
                    result = filter.define(definition);
                }
            });
            result?;
            // What cannot be read is reported when the records are counted.
            let _ = read;
        }
        Ok(())
    }

    /// Counts the records of a segment.
    fn segment(&mut self, found: &Found, progress: &dyn Fn(u64)) -> anyhow::Result<()> {
        let mut totals = Totals::default();
        let mut state = if found.void { State::Void } else { State::Valid };
        match self.open(found) {
            Some(Ok(segment)) => {
                totals.bytes = found.end;
                for entry in segment.entries().take_while(|entry| entry.offset < found.end) {
                    progress(entry.offset + entry.bytes);
                    self.entry(found, &segment, &entry, &mut totals)?;
                }
            }
            // A running server has removed it since it was listed.
            Some(Err(chronolith_wal::Error::Fs(error))) if error.is_not_found() => return Ok(()),
            Some(Err(chronolith_wal::Error::Fs(error))) => {
                let place = Place::new(&found.path, 0, 0, DamageReason::Unreadable).with_error(&error);
                self.report.damaged(place);
                state = State::Unreadable;
            }
            Some(Err(error)) => return Err(error).context("the log cannot be read"),
            None if found.void => {}
            None => state = State::Unreadable,
        }
        self.report.total.add(&totals);
        if let Some(series) = &mut self.series {
            totals.series = Some(series.segment.len() as u64);
            series.segment.clear();
        }
        if self.filter.is_none() {
            totals.bytes_per_sample = per_sample(&totals);
        }
        let file_bytes = found.summary.map_or(0, |summary| summary.bytes);
        let file = shown(&found.path);
        self.report.segments.push(SegmentReport { file, state, file_bytes, totals });
        Ok(())
    }

    fn entry(
        &mut self,
        found: &Found,
        segment: &Segment,
        entry: &Entry,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        match entry.status {
            EntryStatus::Damaged { reason, tail } => {
                // What is behind the end was written again.
                let bytes = entry.bytes.min(found.end - entry.offset);
                let place = Place::new(&found.path, entry.offset, bytes, reason);
                if tail && found.last && reason != DamageReason::Unreadable {
                    self.report.unfinished = Some(place);
                } else {
                    self.report.damaged(place);
                }
            }
            EntryStatus::Record(info) => {
                totals.records += 1;
                match (info.record_type, info.count) {
                    (None, _) => totals.unknown_records += 1,
                    (Some(_), None) => {
                        let reason = DamageReason::Content;
                        self.report.damaged(Place::new(&found.path, entry.offset, entry.bytes, reason));
                    }
                    (Some(record_type), Some(count)) => {
                        self.record(segment, entry, &info, record_type, count, totals)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Counts an intact record.
    fn record(
        &mut self,
        segment: &Segment,
        entry: &Entry,
        info: &RecordInfo,
        record_type: RecordType,
        count: usize,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        let stream = match record_type {
            RecordType::Series | RecordType::Floor | RecordType::Metadata => Stream::Definitions,
            RecordType::Samples | RecordType::Histograms | RecordType::Starts | RecordType::Exemplars => {
                Stream::Samples
            }
            // It holds nothing.
            _ => return Ok(()),
        };
        totals.see_sequence(info.seq, info.seq);
        let last = self.last_seq.entry((stream, info.shard)).or_insert(0);
        if info.seq <= *last {
            totals.repeated_records += 1;
            return Ok(());
        }
        *last = info.seq;
        match record_type {
            RecordType::Series => self.define(segment, entry),
            RecordType::Floor | RecordType::Metadata => Ok(()),
            _ => self.samples(segment, entry, info, record_type, count, totals),
        }
    }

    /// Counts the series that a record defines.
    fn define(&mut self, segment: &Segment, entry: &Entry) -> anyhow::Result<()> {
        let (Some(series), filter) = (&mut self.series, &mut self.filter) else { return Ok(()) };
        let mut result = Ok(true);
        segment.content(entry, &mut |content| {
            let Content::Series(definition) = content else { return };
            // All that match are known.
            match filter.as_mut().map_or(Ok(true), |filter| filter.define(definition)) {
                Ok(true) => series.define(definition.series),
                Ok(false) => {}
                error => result = error,
            }
        })?;
        result.map(drop)
    }

    /// Counts samples and what else is of series: all of the record, or those of series that match.
    fn samples(
        &mut self,
        segment: &Segment,
        entry: &Entry,
        info: &RecordInfo,
        record_type: RecordType,
        count: usize,
        totals: &mut Totals,
    ) -> anyhow::Result<()> {
        let Some(filter) = &mut self.filter else {
            *totals.of(record_type) += count as u64;
            if let Some((min, max)) = info.times.filter(|_| is_sample(record_type)) {
                totals.see_time(min, max);
            }
            return Ok(());
        };
        segment.content(entry, &mut |content| {
            let (series, t) = match content {
                Content::Sample(sample) => (sample.series, sample.timestamp),
                Content::Histogram(entry) | Content::Exemplar(entry) => (entry.series, entry.timestamp),
                Content::Start(start) => (start.series, start.since),
                _ => return,
            };
            if filter.count(series, t, record_type) {
                *totals.of(record_type) += 1;
                if is_sample(record_type) {
                    totals.see_time(t, t);
                }
            }
        })?;
        Ok(())
    }
}

/// Whether such records hold samples, floats or histograms.
pub(super) fn is_sample(record_type: RecordType) -> bool {
    matches!(record_type, RecordType::Samples | RecordType::Histograms)
}

fn per_sample(totals: &Totals) -> Option<f64> {
    let samples = totals.samples + totals.histograms;
    (samples > 0).then(|| totals.bytes as f64 / samples as f64)
}
