//! Files and directories.

use std::fmt::Debug;
use std::path::Path;

use crate::Result;

/// How to open a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// A file that must not exist yet, for reading and appending.
    CreateNew,
    /// An existing or new file, for reading and appending.
    Append,
    /// An existing or new file, emptied, for reading and appending.
    Truncate,
}

/// A file system. What is written is durable only after [`File::sync_data`], a created, renamed or removed name only
/// after [`Fs::sync_dir`] of its directory.
pub trait Fs: Send + Sync + Debug {
    /// Creates `dir` and its missing parents, and makes the names it creates durable; fine if it exists.
    fn create_dir_all(&self, dir: &Path) -> Result<()>;

    /// The names of the files and directories in `dir`, sorted. Names that are not UTF-8 are not ours and are left out.
    fn list(&self, dir: &Path) -> Result<Vec<String>>;

    /// Opens a file.
    fn open(&self, path: &Path, mode: OpenMode) -> Result<Box<dyn File>>;

    /// Renames a file, replacing `to`.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Makes the creations, renames and removals in `dir` durable.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Whether a file or directory is there.
    fn exists(&self, path: &Path) -> Result<bool>;

    /// Gives the file `from` the further name `to`, which must not exist, on the same device.
    fn hard_link(&self, from: &Path, to: &Path) -> Result<()> {
        let _ = to;
        Err(crate::Error::new(crate::Op::Link, from, std::io::ErrorKind::Unsupported.into()))
    }

    /// Removes an empty directory.
    fn remove_dir(&self, dir: &Path) -> Result<()> {
        Err(crate::Error::new(crate::Op::Remove, dir, std::io::ErrorKind::Unsupported.into()))
    }

    /// How many bytes this process may still write on the device that `dir` is on; `None` where nobody can tell.
    fn free_bytes(&self, dir: &Path) -> Result<Option<u64>> {
        let _ = dir;
        Ok(None)
    }

    /// Creates `path` if need be and takes the exclusive advisory lock on it, without waiting; dropping the result
    /// releases it. [`crate::Error::Locked`] when another process, or another handle of this one, holds it.
    fn lock_exclusive(&self, path: &Path) -> Result<Box<dyn FileLock>>;
}

/// An open file. Closed when dropped.
pub trait File: Send + Sync + Debug {
    /// Where it was opened.
    fn path(&self) -> &Path;

    /// Appends all of `bytes`. After an error an unknown part of them is in the file.
    fn write_all(&mut self, bytes: &[u8]) -> Result<()>;

    /// Makes what was written durable. After an error nothing may be assumed about any unsynced byte, and a second
    /// call proves nothing.
    fn sync_data(&mut self) -> Result<()>;

    /// Reads up to `buf.len()` bytes at `off`; fewer only at the end of the file.
    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize>;

    /// Reads exactly `buf.len()` bytes at `off`; an `UnexpectedEof` error if the file is shorter.
    fn read_exact_at(&self, off: u64, buf: &mut [u8]) -> Result<()> {
        let got = self.read_at(off, buf)?;
        if got == buf.len() {
            return Ok(());
        }
        let eof = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        Err(crate::Error::new(crate::Op::Read, self.path(), eof))
    }

    /// The file's length in bytes.
    fn len(&self) -> Result<u64>;

    /// Whether the file has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with zeros. Durable after [`File::sync_data`].
    fn set_len(&mut self, len: u64) -> Result<()>;
}

/// A held lock; released when dropped.
pub trait FileLock: Send + Sync + Debug {}
