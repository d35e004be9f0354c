//! A file system that notes every read.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use chronolith_env::{Fs, Op};
use chronolith_testkit::hook_fs::HookFs;

/// File, offset and bytes of a read.
pub(crate) type Read = (PathBuf, u64, u64);

/// What has been read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counting(Arc<Mutex<Vec<Read>>>);

impl Counting {
    /// `inner`, of which every read is noted, and where.
    pub(crate) fn on(inner: Arc<dyn Fs>) -> (Self, Arc<dyn Fs>) {
        let noted = Self::default();
        let Self(reads) = noted.clone();
        let fs = HookFs::new(inner, move |call| {
            if call.op == Op::Read {
                reads.lock().unwrap().push((call.path.to_path_buf(), call.offset, call.bytes));
            }
            Ok(())
        });
        (noted, Arc::new(fs))
    }

    /// The reads since the last call.
    pub(crate) fn take(&self) -> Vec<Read> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}
