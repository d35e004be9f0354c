//! A file that remembers what the device refused. That says nothing of the content: who reads it is to stop, not to take it
//! for damaged.

use std::path::Path;

use chronolith_env::{Error, File, Result};
use parking_lot::Mutex;

/// A file that is read.
#[derive(Debug)]
pub(super) struct Watched {
    file: Box<dyn File>,
    refused: Mutex<Option<Error>>,
}

impl Watched {
    pub(super) fn new(file: Box<dyn File>) -> Self {
        Self { file, refused: Mutex::default() }
    }

    /// Fails if the device has refused a read.
    pub(super) fn check(&self) -> Result<()> {
        self.refused.lock().take().map_or(Ok(()), Err)
    }
}

impl File for Watched {
    fn path(&self) -> &Path {
        self.file.path()
    }

    fn write_all(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes)
    }

    fn sync_data(&mut self) -> Result<()> {
        self.file.sync_data()
    }

    fn read_at(&self, off: u64, buf: &mut [u8]) -> Result<usize> {
        // Asked twice, like the log: a device may have a bad moment.
        let read = self.file.read_at(off, buf).or_else(|_| self.file.read_at(off, buf));
        read.map_err(|error| {
            let told = Error::new(chronolith_env::Op::Read, self.path(), error.kind().into());
            self.refused.lock().get_or_insert(error);
            told
        })
    }

    fn len(&self) -> Result<u64> {
        self.file.len()
    }

    fn set_len(&mut self, len: u64) -> Result<()> {
        self.file.set_len(len)
    }
}
