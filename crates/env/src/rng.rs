//! Randomness.

use std::fmt::Debug;
use std::time::{SystemTime, UNIX_EPOCH};

/// A source of random numbers for salts, ids and jitter.
pub trait Rng: Send + Sync + Debug {
    /// 64 uniformly distributed bits.
    fn next_u64(&self) -> u64;
}

/// The randomness of the operating system.
#[derive(Debug, Default)]
pub struct OsRng;

impl Rng for OsRng {
    fn next_u64(&self) -> u64 {
        // Only a kernel without a random device fails here. What is drawn are salts and jitter, not keys: time will do.
        getrandom::u64().unwrap_or_else(|_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let seed = (now.as_nanos() as u64) ^ (u64::from(std::process::id()) << 32);
            seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_differ() {
        let drawn: std::collections::HashSet<u64> = (0..64).map(|_| OsRng.next_u64()).collect();
        assert_eq!(drawn.len(), 64);
    }
}
