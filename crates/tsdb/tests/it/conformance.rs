use std::{sync::Arc, time::Duration};

use chronolith_model::{MetricMetadata, TenantId, TimeRange};
use chronolith_storage::{
    AppendedBatch, Appender, ExemplarBatch, ExemplarOutcome, KeyHasher, Querier, Queryable, StorageError,
    Stores, WriteBatch, conformance,
};
use chronolith_tsdb::Db;

use crate::fixture::{Machine, eventually, quick};

#[test]
fn the_database_keeps_the_contract_of_storage() {
    conformance::check(|| {
        // The suite writes at the beginning of time.
        let machine = Machine::at(1_000_000_000);
        machine.open(quick()).0
    });
    conformance::check_admin(|| Machine::at(1_000_000_000).open(quick()).0);
    conformance::check_label_limits(|| Machine::at(1_000_000_000).open(quick()).0);
}

#[test]
fn it_keeps_it_after_a_restart_too() {
    let machine = Machine::at(1_000_000_000);
    machine.open(quick()).0.close().expect("closes");
    let mut first = Some(machine.open(quick()).0);
    conformance::check(|| first.take().unwrap_or_else(|| Machine::at(1_000_000_000).open(quick()).0));
    machine.clock.advance(Duration::from_secs(1));
    machine.open(quick()).0.close().expect("opens again");
}

/// A database whose head is cut into blocks before each view.
struct Cut(Db);

impl Appender for Cut {
    fn stores(&self) -> Stores {
        self.0.stores()
    }

    fn append_exemplars(&self, tenant: &TenantId, batch: &ExemplarBatch<'_>) -> ExemplarOutcome {
        self.0.append_exemplars(tenant, batch)
    }

    fn key_hasher(&self) -> KeyHasher {
        self.0.key_hasher()
    }

    fn append(&self, tenant: &TenantId, batch: &WriteBatch<'_>) -> Result<AppendedBatch, StorageError> {
        self.0.append(tenant, batch)
    }

    fn append_metadata(&self, tenant: &TenantId, metadata: Vec<MetricMetadata>) {
        self.0.append_metadata(tenant, metadata);
    }
}

impl Queryable for Cut {
    fn querier(&self, tenant: &TenantId, range: TimeRange) -> Result<Arc<dyn Querier>, StorageError> {
        // A cut is shown at once; its end waits for views that the suite still holds.
        let shown = self.0.stats().jobs.blocks_cut;
        if self.0.stats().head.series > 0 && self.0.stats().jobs.cuts == 0 && shown == 0 {
            self.0.request_cut(i64::MAX);
            eventually("a cut", || self.0.stats().jobs.blocks_cut > shown);
        }
        self.0.querier(tenant, range)
    }
}

#[test]
fn it_keeps_it_over_blocks_too() {
    conformance::check(|| Cut(Machine::at(1_000_000_000).open(quick()).0));
}
