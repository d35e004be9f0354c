//! Buffers that outlive a request.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    sync::{Mutex, PoisonError},
};

/// Keeps a bounded number of byte buffers of bounded size for reuse. Taking one never blocks for long and never
/// fails; what does not fit is freed.
pub struct BufferPool {
    buffers: Mutex<Vec<Vec<u8>>>,
    buffers_max: usize,
    buffer_bytes_max: usize,
}

impl BufferPool {
    /// A pool of at most `buffers_max` buffers of at most `buffer_bytes_max` bytes each.
    #[must_use]
    pub const fn new(buffers_max: usize, buffer_bytes_max: usize) -> Self {
        Self { buffers: Mutex::new(Vec::new()), buffers_max, buffer_bytes_max }
    }

    /// A buffer with whatever an earlier user left in it. It comes back to the pool when it is dropped.
    #[must_use]
    pub fn take(&self) -> PooledBuffer<'_> {
        let buffer = self.lock().pop().unwrap_or_default();
        PooledBuffer { buffer, pool: self }
    }

    /// Buffers that lie idle.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Vec<u8>>> {
        // A buffer has no invariant that a panic could break.
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferPool")
            .field("idle", &self.idle())
            .field("buffers_max", &self.buffers_max)
            .field("buffer_bytes_max", &self.buffer_bytes_max)
            .finish()
    }
}

/// A buffer on loan from a [`BufferPool`].
#[derive(Debug)]
pub struct PooledBuffer<'a> {
    buffer: Vec<u8>,
    pool: &'a BufferPool,
}

impl Deref for PooledBuffer<'_> {
    type Target = Vec<u8>;
    fn deref(&self) -> &Vec<u8> {
        &self.buffer
    }
}

impl DerefMut for PooledBuffer<'_> {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }
}

impl Drop for PooledBuffer<'_> {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        if buffer.capacity() == 0 || buffer.capacity() > self.pool.buffer_bytes_max {
            return;
        }
        let mut idle = self.pool.lock();
        if idle.len() < self.pool.buffers_max {
            idle.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_many_nor_large_buffers_are_kept() {
        let pool = BufferPool::new(2, 100);
        {
            let mut buffers = [pool.take(), pool.take(), pool.take()];
            for buffer in &mut buffers {
                buffer.extend_from_slice(&[7; 50]);
            }
        }
        assert_eq!(pool.idle(), 2);
        let mut large = pool.take();
        assert_eq!(large.len(), 50, "the buffer of an earlier user");
        large.resize(1000, 0);
        drop(large);
        assert_eq!(pool.idle(), 1);
    }
}
