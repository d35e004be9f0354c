//! What befalls a database from outside: a clock that is wrong, blocks that there is no room for.

use std::{path::Path, sync::Arc};

use chronolith_block::{Block, BlockCache};
use chronolith_env::Fs;
use chronolith_model::TenantId;
use chronolith_testkit::fault_fs::FaultFs;

use super::world::World;
use crate::fixture::DIR;

const MINUTE: i64 = 60_000;

impl World {
    /// The clock of the machine jumps; senders have clocks of their own.
    pub(super) fn turn_clock(&mut self) {
        if self.skew != 0 {
            return self.right_clock();
        }
        let (minutes, hours) = (1 + self.below(59) as i64, 1 + self.below(70) as i64);
        let skew = match self.below(6) {
            0 => -minutes * MINUTE,
            1 => -(hours % 12) * 60 * MINUTE,
            2 | 3 => minutes * MINUTE,
            _ => hours * 60 * MINUTE,
        };
        self.skew_until = self.ops + 1 + self.below(100);
        self.note(format!("the clock jumps by {} minutes until {}", skew / MINUTE, self.skew_until));
        let now = self.now() + skew;
        self.fake.clock.set_now_ms(now);
        self.skew = skew;
    }

    /// The clock is set right.
    pub(super) fn right_clock(&mut self) {
        self.skew_until = u64::MAX;
        let now = self.true_now();
        self.fake.clock.set_now_ms(now);
        self.skew = 0;
        self.note("the clock is right again".to_owned());
        if self.db().stats().head.floor > now - 2 * 60 * MINUTE {
            // Nothing is taken any more until the next start.
            self.crash_at = self.crash_at.min(self.ops + 10);
        }
    }

    /// Notes what may have gone with blocks that were dropped because there were too many.
    pub(super) fn look_for_dropped(&mut self) {
        let removed = self.fs.take_removed();
        if self.options.retention_bytes == 0 {
            return;
        }
        let Some(db) = &self.db else { return };
        let dropped = db.stats().jobs.blocks_dropped;
        if std::mem::replace(&mut self.dropped, dropped) == dropped {
            return;
        }
        let mut gone: Vec<_> = removed.into_iter().map(|(_, bytes)| bytes).collect();
        if self.is_faulty() {
            // One that could not be removed is there and not shown.
            gone.extend(self.blocks());
        }
        let (disk, cache) = (FaultFs::new(), BlockCache::new(0));
        let path = Path::new("/some.block");
        for bytes in gone {
            disk.put(path, bytes);
            let fs: Arc<dyn Fs> = Arc::new(disk.clone());
            let Ok(block) = Block::open(&fs, path, &cache) else { continue };
            let spec = &block.meta().spec;
            let range = spec.range.closed();
            let of = |id: &TenantId| *id == spec.tenant;
            if let Some(tenant) = self.tenants.iter_mut().find(|tenant| of(&tenant.id)) {
                tenant.lose(range);
            }
            self.note(format!("dropped, perhaps: {} {range:?}", spec.tenant));
        }
    }

    /// The bytes of all blocks on the disk.
    fn blocks(&self) -> Vec<Vec<u8>> {
        let mut blocks = Vec::new();
        let disk = self.fs.fork();
        for tenant in &self.tenants {
            let dir = Path::new(DIR).join("blocks").join(tenant.id.as_str());
            let names = disk.list(&dir).unwrap_or_default();
            let of_block = |name: &String| name.ends_with(".block");
            blocks.extend(
                names.iter().filter(|name| of_block(name)).filter_map(|name| disk.read(&dir.join(name))),
            );
        }
        blocks
    }
}
