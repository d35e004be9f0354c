//! Files that get another place, on file systems that cannot do it by names alone too.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use chronolith_env::{Fs, OpenMode};

/// Bytes of a file that are copied at a time.
const COPY_BYTES: usize = 1 << 20;

/// Gives `from` the further name `to`; where the file system has no such names, or places are on several devices, copies
/// it. Durable but for the name. Refusals for want of room or an answer of the device stay errors.
pub(crate) fn link_or_copy(fs: &dyn Fs, from: &Path, to: &Path) -> chronolith_env::Result<()> {
    match fs.hard_link(from, to) {
        // Systems say "not permitted" too where they mean that they have none.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::Unsupported
                    | ErrorKind::PermissionDenied
                    | ErrorKind::TooManyLinks
                    | ErrorKind::CrossesDevices
            ) =>
        {
            copy(fs, from, to)
        }
        linked => linked,
    }
}

/// Moves `from` to `to`, in place of what is there: whole or not at all. Over to another device it is copied first.
pub(crate) fn move_file(fs: &dyn Fs, from: &Path, to: &Path) -> chronolith_env::Result<()> {
    match fs.rename(from, to) {
        Err(error) if error.kind() == ErrorKind::CrossesDevices => {}
        moved => return moved,
    }
    let temporary = temporary(to);
    match fs.remove_file(&temporary) {
        Err(error) if !error.is_not_found() => return Err(error),
        _ => {}
    }
    copy(fs, from, &temporary)?;
    fs.rename(&temporary, to)?;
    if let Some(dir) = to.parent() {
        fs.sync_dir(dir)?;
    }
    fs.remove_file(from)
}

/// A name that means nothing to a start, but that what is under it can go.
fn temporary(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".tmp");
    name.into()
}

/// Writes the bytes of `from` to the new file `to`, durably but for its name.
fn copy(fs: &dyn Fs, from: &Path, to: &Path) -> chronolith_env::Result<()> {
    let file = fs.open(from, OpenMode::Read)?;
    let mut copy = fs.open(to, OpenMode::CreateNew)?;
    let mut buffer = vec![0; COPY_BYTES];
    let mut off = 0;
    loop {
        let got = file.read_at(off, &mut buffer)?;
        let Some(bytes) = buffer.get(..got).filter(|bytes| !bytes.is_empty()) else { break };
        copy.write_all(bytes)?;
        off += got as u64;
    }
    copy.sync_data()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use chronolith_env::Op;
    use chronolith_testkit::{
        fault_fs::{CrashMode, Fault, FaultFs},
        hook_fs::HookFs,
    };

    use super::*;

    /// A disk on which names cannot be moved or added between directories.
    fn two_devices(disk: &FaultFs) -> HookFs {
        HookFs::new(Arc::new(disk.clone()), |call| {
            let within = call.op == Op::Rename && call.to.and_then(Path::parent) == call.path.parent();
            if call.to.is_none() || within { Ok(()) } else { call.refuse(ErrorKind::CrossesDevices) }
        })
    }

    #[test]
    fn files_cross_devices_whole() {
        let disk = FaultFs::new();
        let bytes: Vec<u8> = (0..(COPY_BYTES + 1000) as u32).map(|n| n as u8).collect();
        for dir in ["/a", "/b"] {
            disk.create_dir_all(Path::new(dir)).expect("made");
        }
        let (from, to) = (Path::new("/a/x"), Path::new("/b/x"));
        disk.put(from, bytes.clone());
        let fs = two_devices(&disk);
        link_or_copy(&fs, from, Path::new("/b/y")).expect("copied");
        fs.sync_dir(Path::new("/b")).expect("synced");
        disk.fail(Op::Write, 2, 1, Fault::Full);
        move_file(&fs, from, to).expect_err("full");
        assert!(disk.read(from).is_some() && disk.read(to).is_none());
        move_file(&fs, from, to).expect("moved");
        disk.crash(CrashMode::LoseUnsynced, &chronolith_testkit::fake_env::SimRng::new(1));
        assert_eq!(disk.read(to), Some(bytes.clone()));
        assert_eq!(disk.read(Path::new("/b/y")), Some(bytes));
    }

    #[test]
    fn what_is_full_or_broken_is_no_lack_of_links() {
        let disk = FaultFs::new();
        disk.create_dir_all(Path::new("/a")).expect("made");
        let (from, to) = (Path::new("/a/x"), Path::new("/a/y"));
        disk.put(from, b"content".to_vec());
        for fault in [Fault::Full, Fault::Io, Fault::ReadOnly] {
            disk.fail(Op::Link, 1, 1, fault);
            link_or_copy(&disk, from, to).expect_err("refused");
            assert_eq!(disk.read(to), None);
        }
        disk.fail(Op::Link, 1, 1, Fault::Denied);
        link_or_copy(&disk, from, to).expect("copied");
        assert_eq!(disk.read(to).as_deref(), Some(&b"content"[..]));
    }
}
