//! Tenants: each has its own inverted index, so that one never sees another's series.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chronolith_index::MemoryIndex;
use chronolith_model::{Labels, TenantId};
use chronolith_storage::SeriesKey;
use parking_lot::RwLock;

use crate::{error::Error, options::TENANTS_MAX};

/// One tenant's part of the head.
#[derive(Debug)]
pub(crate) struct Tenant {
    pub(crate) id: TenantId,
    pub(crate) number: u32,
    /// Distinguishes the tenant's keys from those of others.
    salt: SeriesKey,
    /// The same in every process.
    stable: u64,
    pub(crate) index: RwLock<MemoryIndex>,
    /// Bytes of the index, as of its last change.
    index_bytes: AtomicUsize,
    /// Live series.
    series: AtomicUsize,
}

impl Tenant {
    /// `key` among the keys of all tenants.
    #[inline]
    pub(crate) fn salted(&self, key: SeriesKey) -> SeriesKey {
        SeriesKey { primary: key.primary ^ self.salt.primary, secondary: key.secondary ^ self.salt.secondary }
    }

    /// The hash of a series among those of all tenants, the same in every process.
    pub(crate) fn stable_hash(&self, labels: &Labels) -> u64 {
        labels.stable_hash() ^ self.stable
    }

    /// Changes the index and notes its size.
    pub(crate) fn change_index(&self, change: impl FnOnce(&mut MemoryIndex)) {
        let mut index = self.index.write();
        change(&mut index);
        self.index_bytes.store(index.bytes(), Ordering::Relaxed);
        self.series.store(index.len(), Ordering::Relaxed);
    }

    pub(crate) fn series(&self) -> usize {
        self.series.load(Ordering::Relaxed)
    }
}

/// All tenants. They are numbered from 0 in the order of their first series, anew in each process.
#[derive(Debug, Default)]
pub(crate) struct Tenants {
    known: RwLock<Known>,
}

#[derive(Debug, Default)]
struct Known {
    by_id: HashMap<TenantId, Arc<Tenant>>,
    by_number: Vec<Arc<Tenant>>,
}

impl Tenants {
    pub(crate) fn get(&self, id: &TenantId) -> Option<Arc<Tenant>> {
        self.known.read().by_id.get(id).cloned()
    }

    /// The tenant `id`, made if need be; `salt` is random.
    pub(crate) fn get_or_create(&self, id: &TenantId, salt: impl Fn() -> u64) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.get(id) {
            return Ok(tenant);
        }
        let mut known = self.known.write();
        if let Some(tenant) = known.by_id.get(id) {
            return Ok(Arc::clone(tenant));
        }
        if known.by_number.len() >= TENANTS_MAX {
            return Err(Error::TenantLimit { max: TENANTS_MAX });
        }
        let tenant = Arc::new(Tenant {
            id: id.clone(),
            number: u32::try_from(known.by_number.len()).expect("below TENANTS_MAX"),
            salt: SeriesKey { primary: salt(), secondary: salt() },
            stable: Labels::from_pairs([("tenant", id.as_str())]).stable_hash(),
            index: RwLock::default(),
            index_bytes: AtomicUsize::new(0),
            series: AtomicUsize::new(0),
        });
        known.by_id.insert(id.clone(), Arc::clone(&tenant));
        known.by_number.push(Arc::clone(&tenant));
        Ok(tenant)
    }

    pub(crate) fn by_number(&self, number: u32) -> Option<Arc<Tenant>> {
        self.known.read().by_number.get(number as usize).cloned()
    }

    pub(crate) fn all(&self) -> Vec<Arc<Tenant>> {
        self.known.read().by_number.clone()
    }

    /// Bytes of all indexes.
    pub(crate) fn index_bytes(&self) -> usize {
        self.known.read().by_number.iter().map(|tenant| tenant.index_bytes.load(Ordering::Relaxed)).sum()
    }
}
