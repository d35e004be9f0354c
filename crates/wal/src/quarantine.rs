//! Damage: what it is, and where its bytes are kept.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_env::{File, Fs, OpenMode};

/// What is wrong with a damaged place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DamageReason {
    /// The segment's header; its records are still read.
    SegmentHeader,
    /// No record begins here.
    RecordHeader,
    /// A record's payload does not match its checksum.
    Payload,
    /// A record's payload matches its checksum, but does not say what its type promises.
    Content,
    /// A record that ends beyond the end of its segment.
    Truncated,
    /// The device cannot read it.
    Unreadable,
    /// A segment that should be there is not.
    MissingSegment,
}

impl fmt::Display for DamageReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SegmentHeader => "the segment's header is damaged",
            Self::RecordHeader => "no record begins here",
            Self::Payload => "a record's payload does not match its checksum",
            Self::Content => "a record's payload does not say what its type promises",
            Self::Truncated => "a record ends beyond the end of its segment",
            Self::Unreadable => "the device cannot read it",
            Self::MissingSegment => "a segment that should be there is not",
        })
    }
}

/// A damaged place in a log. What lies there is lost; everything around it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment.
    pub path: PathBuf,
    /// Where the damage begins.
    pub offset: u64,
    /// How many bytes are damaged.
    pub bytes: u64,
    /// What is wrong.
    pub reason: DamageReason,
    /// Where the damaged bytes have been copied to, if that was possible.
    pub quarantined: Option<PathBuf>,
}

/// A segment that the device does not open. Nothing is known of what it has, which may be readable another time. Among
/// damaged places it is [`DamageReason::Unreadable`], of no bytes.
#[derive(Clone, Debug)]
pub struct Unopened {
    /// The segment.
    pub path: PathBuf,
    /// What the device said.
    pub cause: Arc<chronolith_env::Error>,
}

impl Unopened {
    pub(crate) fn new(path: &Path, cause: chronolith_env::Error) -> Self {
        Self { path: path.to_path_buf(), cause: Arc::new(cause) }
    }

    pub(crate) fn damage(&self) -> Damage {
        let (path, reason) = (self.path.clone(), DamageReason::Unreadable);
        Damage { path, offset: 0, bytes: 0, reason, quarantined: None }
    }
}

/// At most this many damaged places are listed in a report; all are counted.
pub(crate) const DAMAGE_MAX: usize = 1000;

/// At most this many bytes of a damaged place are copied.
const QUARANTINE_BYTES_MAX: u64 = 1024 * 1024;

/// At most this many damaged places are copied.
const QUARANTINE_FILES_MAX: usize = 1000;

/// Copies the first bytes of a damaged place to `<dir>/quarantine/<segment>-<offset>.bad`. What cannot be copied stays
/// where it is: the damage is reported either way.
pub(crate) fn quarantine(fs: &dyn Fs, dir: &Path, number: u32, file: &dyn File, damage: &mut Damage) {
    let dir = dir.join("quarantine");
    let path = dir.join(format!("{number:08}-{}.bad", damage.offset));
    if copy(fs, &dir, &path, file, damage).is_ok_and(|there| there) {
        damage.quarantined = Some(path);
    }
}

/// Moves a segment to `<dir>/quarantine`; removes it if that is full.
pub(crate) fn move_segment(fs: &dyn Fs, dir: &Path, path: &Path) -> chronolith_env::Result<()> {
    let quarantine = dir.join("quarantine");
    fs.create_dir_all(&quarantine)?;
    let Some(name) = path
        .file_name()
        .filter(|_| fs.list(&quarantine).is_ok_and(|there| there.len() < QUARANTINE_FILES_MAX))
    else {
        return fs.remove_file(path);
    };
    fs.rename(path, &quarantine.join(name))?;
    fs.sync_dir(&quarantine)
}

fn copy(
    fs: &dyn Fs,
    dir: &Path,
    path: &Path,
    file: &dyn File,
    damage: &Damage,
) -> chronolith_env::Result<bool> {
    if fs.exists(path)? {
        // From an earlier start.
        return Ok(true);
    }
    fs.create_dir_all(dir)?;
    if fs.list(dir)?.len() >= QUARANTINE_FILES_MAX {
        return Ok(false);
    }
    let mut bytes = vec![0; usize::try_from(damage.bytes.min(QUARANTINE_BYTES_MAX)).unwrap_or(0)];
    let got = file.read_at(damage.offset, &mut bytes)?;
    let mut out = fs.open(path, OpenMode::CreateNew)?;
    if let Err(e) = out.write_all(bytes.get(..got).unwrap_or_default()).and_then(|()| out.sync_data()) {
        // A part would pass for the whole at the next start.
        let _ = fs.remove_file(path);
        return Err(e);
    }
    fs.sync_dir(dir)?;
    Ok(true)
}
