//! Blocks that were set aside: how many are spoken of.

use std::path::Path;

use chronolith_block::{Ulid, block_path};
use chronolith_env::Fs;
use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::Queryable;

use crate::fixture::{DIR, Machine, quick};

/// Blocks looked at per tenant.
const MISSING_MAX: u64 = 1_000;
/// Blocks that a view names.
const NAMED_MAX: usize = 10;

#[test]
fn many_blocks_that_were_set_aside_are_counted_up_to_a_limit() {
    for (files, missing) in [(NAMED_MAX as u64, NAMED_MAX as u64), (MISSING_MAX + 5, MISSING_MAX)] {
        let machine = Machine::new();
        machine.open(quick()).0.close().expect("closes");
        let dir = Path::new(DIR).join("blocks/anonymous/quarantine");
        machine.fs.create_dir_all(&dir).expect("a directory");
        for number in 0..files {
            machine.fs.put(&block_path(&dir, Ulid::from_parts(number + 1, 7)), b"damaged".to_vec());
        }
        let (db, _) = machine.open(quick());
        assert_eq!(db.stats().blocks.missing, missing);
        let view = db.querier(&TenantId::default(), TimeRange::ALL).expect("it is open");
        let warnings = view.warnings();
        let named = warnings.iter().filter(|text| text.starts_with("damaged block ")).count();
        assert_eq!(named, NAMED_MAX);
        let rest = warnings.get(NAMED_MAX).map(String::as_str);
        let more = "990 more damaged blocks are not part of the answer";
        assert_eq!(rest, (missing > NAMED_MAX as u64).then_some(more));
        assert!(warnings.len() <= NAMED_MAX + 1);
    }
}
