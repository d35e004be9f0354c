//! A file that appears whole or not at all.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use chronolith_codec::crc32;
use chronolith_env::{File, Fs, OpenMode};

use crate::error::{Error, Result};
use crate::layout::UNIT_BYTES_MAX;
use crate::layout::directory::UnitRef;
use crate::meta::temporary_path;

/// Bytes collected before they are handed to the file system.
pub(super) const BUFFER_BYTES: usize = 1 << 20;

/// A file under its temporary name. Removed when dropped before [`Output::publish`].
#[derive(Debug)]
pub(crate) struct Output {
    fs: Arc<dyn Fs>,
    path: PathBuf,
    temporary: PathBuf,
    /// None once published.
    file: Option<Box<dyn File>>,
    buffer: Vec<u8>,
    off: u64,
}

impl Output {
    /// Starts the file that will be `path`. A temporary file left by an earlier attempt is overwritten.
    pub(crate) fn create(fs: &Arc<dyn Fs>, path: &Path) -> Result<Self> {
        let temporary = temporary_path(path);
        let file = fs.open(&temporary, OpenMode::Truncate)?;
        Ok(Self {
            fs: Arc::clone(fs),
            path: path.to_path_buf(),
            temporary,
            file: Some(file),
            buffer: Vec::new(),
            off: 0,
        })
    }

    /// The offset of the next byte.
    pub(crate) const fn offset(&self) -> u64 {
        self.off
    }

    /// The final path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<()> {
        self.off += bytes.len() as u64;
        if self.buffer.len() + bytes.len() > BUFFER_BYTES {
            self.write_buffer()?;
        }
        if bytes.len() >= BUFFER_BYTES {
            return self.write(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Appends `bytes` as one readable unit.
    pub(crate) fn append_unit(&mut self, bytes: &[u8]) -> Result<UnitRef> {
        if bytes.len() > UNIT_BYTES_MAX as usize {
            let (got, max) = (bytes.len() as u64, UNIT_BYTES_MAX.into());
            return Err(Error::Limit { what: "bytes of a unit", got, max });
        }
        let unit = UnitRef { off: self.off, len: bytes.len() as u32, crc: crc32(bytes) };
        self.append(bytes)?;
        Ok(unit)
    }

    /// Makes the file durable, gives it its name, and makes the name durable.
    pub(crate) fn publish(mut self) -> Result<()> {
        self.write_buffer()?;
        if let Some(file) = &mut self.file {
            // Sync point 1: every byte of the file, before its name says that it is whole.
            file.sync_data()?;
        }
        self.fs.rename(&self.temporary, &self.path)?;
        self.file = None;
        // Sync point 2: the name.
        let dir = self.path.parent().unwrap_or_else(|| Path::new("."));
        Ok(self.fs.sync_dir(dir)?)
    }

    fn write_buffer(&mut self) -> Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let written = self.write(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        written
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        match &mut self.file {
            Some(file) if !bytes.is_empty() => Ok(file.write_all(bytes)?),
            _ => Ok(()),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if self.file.take().is_some() {
            // Best effort: what stays is recognised by its name and removed at the next start.
            let _ = self.fs.remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use chronolith_env::Op;
    use chronolith_testkit::fake_env::SimRng;
    use chronolith_testkit::fault_fs::{CrashMode, Fault, FaultFs};

    use super::*;

    fn disk() -> (FaultFs, Arc<dyn Fs>) {
        let disk = FaultFs::new();
        disk.create_dir_all(Path::new("/d")).unwrap();
        (disk.clone(), Arc::new(disk))
    }

    #[test]
    fn the_name_comes_last() {
        let (disk, fs) = disk();
        let path = Path::new("/d/x");
        let mut output = Output::create(&fs, path).unwrap();
        output.append(&[1; 10]).unwrap();
        output.append(&vec![2; 2 << 20]).unwrap();
        output.append(&[3; 10]).unwrap();
        assert_eq!(output.offset(), 20 + (2 << 20));
        assert!(disk.read(path).is_none());
        output.publish().unwrap();
        disk.crash(CrashMode::LoseUnsynced, &SimRng::new(1));
        let bytes = disk.read(path).expect("published is durable");
        assert_eq!((bytes.len(), bytes[9], bytes[10]), (20 + (2 << 20), 1, 2));
        assert_eq!(disk.list(Path::new("/d")).unwrap(), ["x"]);
    }

    #[test]
    fn failures_leave_nothing_behind() {
        for op in [Op::Write, Op::Sync, Op::Rename] {
            let (disk, fs) = disk();
            let mut output = Output::create(&fs, Path::new("/d/x")).unwrap();
            output.append(&[1; 10]).unwrap();
            disk.fail(op, 1, 1, Fault::Io);
            output.publish().unwrap_err();
            assert!(disk.list(Path::new("/d")).unwrap().is_empty(), "{op}");
        }
        let (disk, fs) = disk();
        drop(Output::create(&fs, Path::new("/d/x")).unwrap());
        assert!(disk.list(Path::new("/d")).unwrap().is_empty());
    }
}
