//! What a shard has applied and not yet handed to the committer.

use chronolith_codec::write;

use crate::entries::{BLOB_BYTES_MAX, EntryColumn};
use crate::samples::{BlockEnd, SampleColumns};

/// Series definitions are split into records of about this many bytes.
const DEFINITION_BYTES_MAX: usize = 1024 * 1024;

/// Buffers larger than this are given back when they have been written.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// The number of a batch: what one turn of the committer takes from all shards. Ordered; durable in order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Batch(pub(crate) u64);

/// The batch that covers what was found on opening.
pub(crate) const FOUND_BATCH: u64 = 1;

/// What the committer tells a shard when it takes its pending log.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub(crate) batch: u64,
    pub(crate) next_epoch: u32,
    /// Every record of an earlier batch has a number up to this, every one of this batch a higher one.
    pub(crate) sequence: u64,
}

/// Where the committer finds the pending logs: the owner of the shards.
pub trait LogSource: Send + Sync {
    /// Locks shard `shard`, calls [`ShardLog::hand_over`] on its pending log with `into` and `turn`, and unlocks it.
    /// Nothing else is to be done here: every append of the shard waits meanwhile.
    fn take(&self, shard: usize, turn: Turn, into: &mut ShardLog);
}

/// The pending log of one shard. Lives inside the shard's lock, so that the order of its entries is the order in which
/// they were applied.
#[derive(Debug)]
pub struct ShardLog {
    batch: u64,
    epoch: u32,
    sequence: u64,
    pub(crate) definitions: Vec<u8>,
    pub(crate) definition_ends: Vec<DefinitionsEnd>,
    open_definitions: u32,
    pub(crate) columns: SampleColumns,
    pub(crate) histograms: EntryColumn,
    pub(crate) starts: EntryColumn,
    pub(crate) exemplars: EntryColumn,
}

/// Where a record of definitions ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DefinitionsEnd {
    pub(crate) off: usize,
    pub(crate) count: u32,
}

impl ShardLog {
    /// An empty log, for a shard at the start and for the committer's side of the first hand-over.
    #[must_use]
    pub fn new() -> Self {
        Self {
            batch: FOUND_BATCH + 1,
            epoch: 1,
            sequence: 0,
            definitions: Vec::new(),
            definition_ends: Vec::new(),
            open_definitions: 0,
            columns: SampleColumns::default(),
            histograms: EntryColumn::default(),
            starts: EntryColumn::default(),
            exemplars: EntryColumn::default(),
        }
    }

    /// Logs what series `series` is. Must precede whatever else is logged of it in each [`ShardLog::epoch`]. `labels` in canonical
    /// order.
    pub fn define<'a>(
        &mut self,
        series: u32,
        tenant: &str,
        labels: impl ExactSizeIterator<Item = (&'a str, &'a str)>,
    ) {
        write::uvarint(&mut self.definitions, u64::from(series));
        write::prefixed(&mut self.definitions, tenant.as_bytes());
        write::uvarint(&mut self.definitions, labels.len() as u64);
        for (name, value) in labels {
            write::prefixed(&mut self.definitions, name.as_bytes());
            write::prefixed(&mut self.definitions, value.as_bytes());
        }
        self.open_definitions += 1;
        let start = self.definition_ends.last().map_or(0, |end| end.off);
        if self.definitions.len() - start >= DEFINITION_BYTES_MAX {
            self.close_definitions();
        }
    }

    /// Logs one sample; `t` in milliseconds.
    #[inline(always)]
    pub fn sample(&mut self, series: u32, t: i64, value: f64) {
        self.columns.push(series, t, value.to_bits());
    }

    /// Logs one native histogram; `t` in milliseconds, `blob` at most [`crate::BLOB_BYTES_MAX`] bytes that say what it is.
    /// A replay hands over the histograms of a batch behind its samples.
    ///
    /// # Panics
    /// When `blob` is longer than that: it could not be read again.
    pub fn histogram(&mut self, series: u32, t: i64, blob: &[u8]) {
        check(blob);
        self.histograms.blob(series, t, blob);
    }

    /// Logs that samples of a series from `since` on began to be counted at `start`; both in milliseconds. A replay hands
    /// over the starts of a batch behind its histograms.
    pub fn start(&mut self, series: u32, since: i64, start: i64) {
        self.starts.start(series, since, start);
    }

    /// Logs one exemplar; `t` in milliseconds, `blob` at most [`crate::BLOB_BYTES_MAX`] bytes that say what it is. A replay
    /// hands over the exemplars of a batch behind all else.
    ///
    /// # Panics
    /// When `blob` is longer than that: it could not be read again.
    pub fn exemplar(&mut self, series: u32, t: i64, blob: &[u8]) {
        check(blob);
        self.exemplars.blob(series, t, blob);
    }

    /// The batch whose durability covers everything applied to the shard so far: the coming one if something is
    /// pending, else the last one taken, which may still be in flight. To be asked under the shard's lock.
    #[inline]
    #[must_use]
    pub fn ticket(&self) -> Batch {
        Batch(if self.is_empty() { self.batch - 1 } else { self.batch })
    }

    /// Changes when a new segment is begun. A series whose definition was logged under another epoch (compare the whole
    /// number) must be defined again before its next sample. Starts at 1, so that 0 means never defined.
    #[inline]
    #[must_use]
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Everything that this process has logged under numbers up to this was applied to the shard before: what is copied
    /// from the shard after asking, under the same lock, has it. The batch that is being written and what is pending lie
    /// behind it, so a copy has more than it stands for, never less. Rises with each batch that is taken; what was found
    /// on opening counts once [`ShardLog::found`] has been called.
    #[inline]
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The newest batch all of whose records have numbers up to [`ShardLog::sequence`]; to be asked under the
    /// shard's lock, the same as that.
    #[must_use]
    pub const fn numbered(&self) -> Batch {
        // The last batch taken is being written, or lies behind it.
        let taken = self.batch - 1;
        Batch(if taken > FOUND_BATCH { taken - 1 } else { FOUND_BATCH })
    }

    /// Tells a shard that has logged nothing yet what was found on opening, and so replayed: see
    /// [`crate::CommitWaiter::found_sequence`].
    pub fn found(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// Whether nothing is pending.
    #[inline]
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.definitions.is_empty()
            && self.columns.is_empty()
            && self.histograms.is_empty()
            && self.starts.is_empty()
            && self.exemplars.is_empty()
    }

    /// How many bytes are pending. The owner of the shards bounds their sum by refusing appends until the committer has
    /// caught up.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.definitions.len()
            + self.columns.bytes()
            + self.histograms.bytes()
            + self.starts.bytes()
            + self.exemplars.bytes()
    }

    /// How many bytes the buffers take, used or not.
    #[must_use]
    pub const fn allocated_bytes(&self) -> usize {
        self.definitions.capacity()
            + self.columns.capacity()
            + self.histograms.capacity()
            + self.starts.capacity()
            + self.exemplars.capacity()
    }

    /// Swaps what is pending into `into`, which is overwritten, and begins the next batch. For [`LogSource::take`].
    pub fn hand_over(&mut self, turn: Turn, into: &mut Self) {
        std::mem::swap(self, into);
        self.clear();
        self.batch = turn.batch + 1;
        self.epoch = turn.next_epoch;
        self.sequence = turn.sequence;
        into.close();
    }

    /// Ends the open records.
    pub(crate) fn close(&mut self) {
        self.close_definitions();
        self.columns.close();
        for entries in [&mut self.histograms, &mut self.starts, &mut self.exemplars] {
            entries.close();
        }
    }

    /// Where the records of samples end.
    pub(crate) fn sample_ends(&self) -> &[BlockEnd] {
        self.columns.ends()
    }

    fn close_definitions(&mut self) {
        if self.open_definitions > 0 {
            self.definition_ends
                .push(DefinitionsEnd { off: self.definitions.len(), count: self.open_definitions });
            self.open_definitions = 0;
        }
    }

    /// The batch this log goes into, or was taken for.
    pub(crate) const fn batch(&self) -> u64 {
        self.batch
    }

    pub(crate) fn clear(&mut self) {
        if self.definitions.capacity() > SPARE_BYTES_MAX {
            self.definitions = Vec::new();
        }
        self.definitions.clear();
        self.definition_ends.clear();
        self.open_definitions = 0;
        self.columns.clear(SPARE_BYTES_MAX);
        for entries in [&mut self.histograms, &mut self.starts, &mut self.exemplars] {
            entries.clear(SPARE_BYTES_MAX);
        }
    }
}

fn check(blob: &[u8]) {
    assert!(blob.len() <= BLOB_BYTES_MAX, "{} bytes of an entry, {BLOB_BYTES_MAX} allowed", blob.len());
}

impl Default for ShardLog {
    fn default() -> Self {
        Self::new()
    }
}
