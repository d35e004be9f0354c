//! Names for the calls after which something is durable, or gone: the points of docs/durability.md.

use std::path::Path;

use chronolith_env::Op;
use chronolith_testkit::fault_fs::Call;

/// All names.
pub(crate) const NAMES: &[&str] = &[
    "block.data",
    "block.dir",
    "block.name",
    "block.remove",
    "block.remove.dir",
    "chunks.batch",
    "chunks.dir",
    "chunks.header",
    "chunks.unused",
    "chunks.unused.dir",
    "copy.dir",
    "copy.link",
    "cut.data",
    "cut.dir",
    "cut.name",
    "directory.dir",
    "format.data",
    "format.dir",
    "format.name",
    "import.data",
    "import.dir",
    "import.found",
    "import.move",
    "import.done",
    "import.name",
    "import.names",
    "import.ready",
    "snapshot.data",
    "snapshot.dir",
    "snapshot.name",
    "snapshot.old",
    "snapshot.old.dir",
    "snapshot.shown",
    "tombstones.data",
    "tombstones.dir",
    "tombstones.name",
    "tombstones.remove",
    "wal.batch",
    "wal.found",
    "wal.remove",
    "wal.remove.dir",
    "wal.repair.data",
    "wal.repair.dir",
    "wal.repair.name",
    "wal.segment.dir",
    "wal.segment.header",
    "wal.torn",
];

/// Those that are followed at once by something that rests on them.
pub(crate) const CRITICAL: &[&str] = &[
    "block.dir",
    "block.remove",
    "import.move",
    "import.done",
    "import.names",
    "import.ready",
    "snapshot.dir",
    "snapshot.name",
    "snapshot.old",
    "tombstones.remove",
    "wal.remove",
    "wal.repair.name",
];

/// What writes to the log are counted as.
pub(crate) const WAL_WRITE: &str = "wal.write";

/// The file or kind of file that a path names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Format,
    Cut,
    Repair,
    Wal,
    Snapshot,
    Chunks,
    Block,
    Tombstones,
    Other,
}

fn kind(path: &Path) -> Kind {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let name = name.strip_suffix(".tmp").unwrap_or(name);
    match (name, name.rsplit('.').next().unwrap_or_default()) {
        ("format.new", _) => Kind::Format,
        ("cut", _) => Kind::Cut,
        ("repair", _) => Kind::Repair,
        (_, "wal") => Kind::Wal,
        (_, "snapshot") => Kind::Snapshot,
        (_, "chunks") => Kind::Chunks,
        (_, "block") => Kind::Block,
        (_, "tombstones") => Kind::Tombstones,
        _ => Kind::Other,
    }
}

/// Whether it is in the directory of an import.
fn is_import(path: &Path) -> bool {
    path.as_os_str().as_encoded_bytes().windows(8).any(|part| part == b"/import/")
}

/// The name of a call, if it has one.
pub(crate) fn name(call: &Call<'_>) -> Option<&'static str> {
    if is_import(call.path) {
        return of_import(call);
    }
    match call.op {
        Op::Sync => data(call),
        Op::Rename => Some(match kind(call.path) {
            Kind::Format => "format.name",
            Kind::Cut => "cut.name",
            Kind::Repair => "wal.repair.name",
            Kind::Snapshot => "snapshot.name",
            Kind::Block => "block.name",
            Kind::Tombstones => "tombstones.name",
            _ => return None,
        }),
        Op::Remove if !is_temporary(call.path) => Some(match kind(call.path) {
            Kind::Wal => "wal.remove",
            Kind::Snapshot => "snapshot.old",
            Kind::Chunks => "chunks.unused",
            Kind::Block => "block.remove",
            Kind::Tombstones => "tombstones.remove",
            _ => return None,
        }),
        Op::SyncDir => directory(call),
        Op::Link => Some("copy.link"),
        // Not a point; how often it has failed.
        Op::Write if kind(call.path) == Kind::Wal => Some(WAL_WRITE),
        _ => None,
    }
}

/// Whether it has a name that is not its last one.
fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

/// In the directory of an import.
fn of_import(call: &Call<'_>) -> Option<&'static str> {
    Some(match (call.op, kind(call.path)) {
        (Op::Sync, Kind::Block) => "import.data",
        (Op::Rename, Kind::Block) if is_temporary(call.path) => "import.name",
        (Op::Rename, Kind::Block) => "import.move",
        (Op::SyncDir, _) => match (call.before(0)?, call.before(1)) {
            ((Op::Rename, path), _) if is_temporary(path) && is_import(path) => "import.dir",
            ((Op::Create, path), _) if path.ends_with("ready") => "import.ready",
            _ if call.path.parent().is_some_and(|parent| parent.ends_with("import")) => "import.found",
            ((Op::SyncDir, _), Some((Op::Rename, path))) if is_import(path) => "import.done",
            _ => return None,
        },
        _ => return None,
    })
}

/// The sync of a file.
fn data(call: &Call<'_>) -> Option<&'static str> {
    let is_header = call.before(1) == Some((Op::Create, call.path));
    Some(match kind(call.path) {
        Kind::Format => "format.data",
        Kind::Cut => "cut.data",
        Kind::Repair => "wal.repair.data",
        Kind::Snapshot => "snapshot.data",
        Kind::Block => "block.data",
        Kind::Tombstones => "tombstones.data",
        Kind::Chunks if is_header => "chunks.header",
        Kind::Chunks => "chunks.batch",
        Kind::Wal => match call.before(0)?.0 {
            Op::Create => "wal.found",
            Op::Truncate => "wal.torn",
            _ if is_header => "wal.segment.header",
            _ => "wal.batch",
        },
        Kind::Other => return None,
    })
}

/// The sync of a directory: what has changed in it says what it is for.
fn directory(call: &Call<'_>) -> Option<&'static str> {
    let (op, path) = call.before(0)?;
    if op == Op::Link {
        return Some("copy.dir");
    }
    if op == Op::Rename && is_import(path) {
        return Some("import.names");
    }
    if path.parent() != Some(call.path) {
        return call.path.ends_with("head").then_some("snapshot.shown");
    }
    Some(match (op, kind(path)) {
        (Op::CreateDir, _) => "directory.dir",
        (Op::Rename, Kind::Format) => "format.dir",
        (Op::Rename, Kind::Cut) => "cut.dir",
        (Op::Rename, Kind::Repair) => "wal.repair.dir",
        (Op::Rename, Kind::Snapshot) => "snapshot.dir",
        (Op::Rename, Kind::Block) => "block.dir",
        (Op::Rename, Kind::Tombstones) => "tombstones.dir",
        (Op::Sync, Kind::Wal) => "wal.segment.dir",
        (Op::Sync, Kind::Chunks) => "chunks.dir",
        (Op::Remove, Kind::Wal) => "wal.remove.dir",
        (Op::Remove, Kind::Snapshot) => "snapshot.old.dir",
        (Op::Remove, Kind::Chunks) => "chunks.unused.dir",
        (Op::Remove, Kind::Block) => "block.remove.dir",
        _ => return None,
    })
}
