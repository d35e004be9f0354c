//! Limits: tenants, and what waits to be logged.

use chronolith_head::{Error, HeadOptions, LATE_PERCENT_MAX, LOG_PENDING_BYTES_MAX, TENANTS_MAX};
use chronolith_model::{Labels, Sample, TenantId};
use chronolith_storage::{LabelSource, RejectReason, SeriesEntry, WriteBatch};
use chronolith_testkit::fault_fs::FaultFs;
use chronolith_wal::Batch;

use crate::support::{NOW, Store, labels};

/// The series of each entry.
struct Series<'a>(&'a [u32]);

impl LabelSource for Series<'_> {
    fn labels(&self, entry: usize) -> Result<Labels, RejectReason> {
        Ok(labels(self.0[entry]))
    }
}

/// Applies one sample of each of the series; the batch to wait for, or what is in the way.
fn append(store: &Store, tenant: &TenantId, series: &[u32], t: i64) -> Result<Batch, Error> {
    let hasher = store.head.key_hasher();
    let entry = |(at, id): (u32, &u32)| SeriesEntry::of_samples(hasher.key(&id.to_le_bytes()), at..at + 1);
    let entries: Vec<_> = (0..).zip(series).map(entry).collect();
    let samples = vec![Sample::new(t, 1.5); series.len()];
    let labels = Series(series);
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    store.head.append(tenant, &batch).map(|applied| applied.batch)
}

#[test]
fn there_is_a_limit_to_tenants() {
    let store = Store::open(&FaultFs::new(), 1);
    let tenant = |number: usize| TenantId::new(&format!("tenant-{number}")).unwrap();
    for number in 0..TENANTS_MAX {
        append(&store, &tenant(number), &[1], NOW).unwrap();
    }
    let refused = append(&store, &tenant(TENANTS_MAX), &[1], NOW);
    assert!(matches!(refused, Err(Error::TenantLimit { max: TENANTS_MAX })), "{refused:?}");
    append(&store, &tenant(TENANTS_MAX - 1), &[1, 2], NOW + 1).expect("known ones go on");
}

#[test]
fn late_samples_have_a_limit_until_a_cut() {
    let options = |drops_when_short| HeadOptions {
        memory_bytes_max: 4 << 20,
        ooo_window_ms: 24 * 3_600_000,
        drops_when_short,
        ..HeadOptions::default()
    };
    let limit = (4 << 20) / 100 * LATE_PERCENT_MAX;
    for drops in [false, true] {
        let store = Store::try_open_with(&FaultFs::new(), 3, options(drops)).unwrap();
        let tenant = TenantId::default();
        let series: Vec<u32> = (0..1400).collect();
        append(&store, &tenant, &series, NOW).unwrap();
        let mut refused = None;
        for at in 1..200 {
            match append(&store, &tenant, &series, NOW - at * 7001) {
                Ok(batch) => assert!(at % 10 != 0 || store.settle(batch)),
                Err(error) => {
                    refused = Some(error);
                    break;
                }
            }
        }
        if drops {
            // They give way like all else there.
            assert!(!matches!(refused, Some(Error::LateLimit { .. })), "{refused:?}");
            continue;
        }
        let Some(Error::LateLimit { bytes, limit: allowed }) = refused else { panic!("{refused:?}") };
        assert!(allowed == limit && bytes > limit && bytes < limit + (512 << 10), "{bytes} of {limit}");
        assert_eq!(store.head.late_bytes(), bytes);
        assert!(store.head.bytes() < 4 << 20, "memory is not short");
        assert!(append(&store, &tenant, &[1], NOW + 1).is_err(), "nor one in order");
        let cut = store.head.begin_cut(NOW - 1);
        store.head.finish_cut(cut);
        append(&store, &tenant, &series, NOW - 1000).expect("there is room again");
    }
}

#[test]
fn nothing_is_taken_while_too_much_waits_to_be_logged() {
    let store = Store::open(&FaultFs::new(), 2);
    let tenant = TenantId::default();
    let series: Vec<u32> = (0..10_000).collect();
    // Nobody writes the log meanwhile.
    let (mut rounds, mut last) = (0, None);
    let behind = loop {
        match append(&store, &tenant, &series, NOW + rounds) {
            Ok(batch) => last = Some(batch),
            Err(error) => break error,
        }
        rounds += 1;
        assert!(rounds < 10_000, "it goes on for ever");
    };
    let Error::LogBehind { bytes } = behind else { panic!("{behind}") };
    assert!(bytes > LOG_PENDING_BYTES_MAX && bytes < LOG_PENDING_BYTES_MAX + (2 << 20), "{bytes}");
    assert!(append(&store, &tenant, &[1], NOW + rounds).is_err(), "nor one sample");
    assert!(store.settle(last.expect("some were taken")), "it is logged");
    append(&store, &tenant, &series, NOW + rounds).expect("there is room again");
}
