//! The samples of many series at once: frame by frame, so that what slots of a frame share is decoded once.

use chronolith_model::TimeRange;

use super::samples::{Run, SeriesReader, SeriesSamples, find_runs};
use super::starts::note;
use crate::error::{Error, Result};
use crate::layout::directory::FrameKind;

/// A run, and whose it is.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    run: Run,
    /// Place in the batch.
    series: usize,
}

impl SeriesReader<'_> {
    /// Appends the samples of each of the series `ids`, which ascend, to its place in `into`, as [`SeriesReader::read`]
    /// does one by one; much quicker where many of a frame are wanted.
    ///
    /// # Errors
    /// When there are not as many places as ids, or a piece of the block is damaged or cannot be read. `into` then has an
    /// unknown part of the samples.
    pub fn read_batch(&mut self, ids: &[u32], range: TimeRange, into: &mut [SeriesSamples]) -> Result<()> {
        if ids.len() != into.len() {
            let (expected, got) = (ids.len() as u64, into.len() as u64);
            return Err(Error::Input { what: "places for samples", expected, got });
        }
        let mut wanted = Vec::new();
        let mut runs = Vec::new();
        // Series whose starts are to be noted when they are read, and how long they were before.
        let mut started = Vec::new();
        for (series, (&id, into)) in ids.iter().zip(into.iter_mut()).enumerate() {
            runs.clear();
            find_runs(&mut self.cursors, id, range, &mut runs)?;
            // Runs come in the order of parts: they can be appended in that order only if it is that of time.
            let plain = runs.iter().all(|run| run.slot.kind == FrameKind::Float)
                && runs.is_sorted_by(|a, b| a.range.max < b.range.min)
                && !self.deletions.touched.contains(id);
            if plain {
                wanted.extend(runs.iter().map(|run| Wanted { run: *run, series }));
                if !runs.is_empty() && (!into.starts.is_empty() || !self.starts.find(id)?.is_empty()) {
                    started.push((series, id, into.ends()));
                }
            } else {
                self.read(id, range, into)?;
            }
        }
        wanted
            .sort_unstable_by_key(|wanted| (wanted.run.cursor, wanted.run.slot.frame, wanted.run.slot.slot));
        let same =
            |a: &Wanted, b: &Wanted| (a.run.cursor, a.run.slot.frame) == (b.run.cursor, b.run.slot.frame);
        wanted.chunk_by(same).try_for_each(|of_frame| self.read_frame(of_frame, into))?;
        for (series, id, before) in started {
            if let Some(into) = into.get_mut(series) {
                note(self.starts.find(id)?, before, into);
            }
        }
        Ok(())
    }

    /// Appends the runs of one frame.
    fn read_frame(&mut self, wanted: &[Wanted], into: &mut [SeriesSamples]) -> Result<()> {
        let Some(first) = wanted.first() else { return Ok(()) };
        let Some(cursor) = self.cursors.get_mut(first.run.cursor) else { return Ok(()) };
        let Some(frame) = cursor.frame(first.run.slot.frame)? else { return Ok(()) };
        let mut decoder = frame.decoder();
        for Wanted { run, series } in wanted {
            let Some(samples) = into.get_mut(*series) else { continue };
            let slot = run.slot;
            cursor.check_floats(slot, frame.samples(slot.slot))?;
            let timestamps = cursor.timestamps(slot.column)?.get(run.from..run.to).unwrap_or_default();
            samples.timestamps.extend_from_slice(timestamps);
            if run.to - run.from == slot.column.len as usize {
                let decoded = decoder.decode(slot.slot, &mut samples.values);
                decoded.map_err(|error| cursor.damaged_floats(slot, error))?;
            } else {
                self.merge.values.clear();
                let decoded = decoder.decode(slot.slot, &mut self.merge.values);
                decoded.map_err(|error| cursor.damaged_floats(slot, error))?;
                let values = self.merge.values.get(run.from..run.to).unwrap_or_default();
                samples.values.extend_from_slice(values);
            }
        }
        Ok(())
    }
}
