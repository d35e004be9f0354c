//! Answers about labels over blocks: no more is held than is paid for, and nothing is done twice.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use chronolith_model::{Labels, MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storage::{LabelQuery, Payer, Querier, Queryable as _, StorageError, conformance::block_on};
use chronolith_tsdb::Offline;

use crate::fixture::{DIR, Machine, NOW, append, compiled, metric, quick, scrape};

/// Series, each with an `id` of its own.
const SERIES: usize = 10_000;

/// Pays up to a limit, and keeps account.
#[derive(Debug)]
struct Purse {
    max: usize,
    held: AtomicUsize,
    peak: AtomicUsize,
    charges: AtomicUsize,
}

impl Purse {
    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { max, held: 0.into(), peak: 0.into(), charges: 0.into() })
    }

    fn peak(&self) -> usize {
        self.peak.load(Ordering::Relaxed)
    }

    fn charges(&self) -> usize {
        self.charges.load(Ordering::Relaxed)
    }
}

impl Payer for Purse {
    fn charge(&self, bytes: usize) -> Result<(), StorageError> {
        let held = self.held.load(Ordering::Relaxed) + bytes;
        if held > self.max {
            return Err(StorageError::Unavailable { reason: "no money".to_owned() });
        }
        self.held.store(held, Ordering::Relaxed);
        self.peak.fetch_max(held, Ordering::Relaxed);
        self.charges.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What is asked: the number of answers, and the bytes of the first `limit` of them.
type Ask = fn(&dyn Querier, &LabelQuery) -> Result<(Vec<String>, bool), StorageError>;

fn values(querier: &dyn Querier, query: &LabelQuery) -> Result<(Vec<String>, bool), StorageError> {
    let found = block_on(querier.label_values("id", query))?;
    Ok((found.items, found.truncated))
}

fn series(querier: &dyn Querier, query: &LabelQuery) -> Result<(Vec<String>, bool), StorageError> {
    let found = block_on(querier.series(query))?;
    Ok((found.items.iter().map(Labels::to_string).collect(), found.truncated))
}

#[test]
fn an_answer_of_blocks_is_paid_for_as_it_grows() {
    let machine = Machine::new();
    let tenant = TenantId::default();
    let (db, _) = machine.open(quick());
    for hours in [90, 5] {
        let batch = scrape("m", SERIES, NOW - hours * 3_600_000, 1.0);
        append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");
    }
    db.close().expect("closes");
    drop(db);
    let offline = Offline::open(Path::new(DIR), quick(), &machine.env).expect("opens");
    offline.compact(&mut |_| {}).expect("compacted");
    let (db, _) = machine.open(quick());
    assert!(db.stats().blocks.blocks > 1, "several have each series");
    // Some of them, and another, are in the head.
    let mut batch = scrape("m", 10, NOW, 1.0);
    batch.push((metric("n", SERIES), batch[0].1.clone()));
    append(&db, &tenant, &batch).expect("taken").ticket.wait().expect("durable");

    let querier = db.querier(&tenant, TimeRange::ALL).expect("ready");
    let regex = compiled(&[Matcher::new("id", MatchOp::Regex, "[0-9]+")]);
    for sets in [vec![], vec![regex]] {
        let ask = |ask: Ask, limit, purse: &Arc<Purse>| {
            let payer = Some(Arc::clone(purse) as Arc<dyn Payer>);
            ask(&*querier, &LabelQuery { matcher_sets: sets.clone(), range: None, limit, payer })
        };
        for question in [values as Ask, series] {
            let purse = Purse::new(usize::MAX);
            let (all, truncated) = ask(question, 0, &purse).expect("paid");
            assert_eq!((all.len(), truncated), (SERIES + 1, false));
            assert_eq!(purse.charges(), all.len(), "each once, though three have it");
            let whole = purse.peak();
            assert!(whole > all.len() * 80, "{whole}");

            // What nobody pays for is not held, and no more is looked for.
            let purse = Purse::new(whole / 10);
            let refused = ask(question, 0, &purse).expect_err("too much");
            assert!(refused.to_string().contains("no money"), "{refused}");
            assert!(purse.peak() <= whole / 10 && purse.charges() < all.len() / 5);

            let purse = Purse::new(usize::MAX);
            let (first, truncated) = ask(question, 100, &purse).expect("paid");
            assert_eq!((&first[..], truncated), (&all[..100], true));
            assert!(purse.peak() <= 102 * whole / all.len(), "{} of {whole}", purse.peak());
            // Blocks give theirs in order: what the head had is in its way, the rest of them is not looked at.
            assert!(purse.charges() <= 100 + 11, "{}", purse.charges());
        }
    }
    let purse = Purse::new(usize::MAX);
    let payer = Some(Arc::clone(&purse) as Arc<dyn Payer>);
    let query = LabelQuery { limit: 2, payer, ..LabelQuery::default() };
    let names = block_on(querier.label_names(&query)).expect("paid");
    assert_eq!((names.items, names.truncated), (vec!["__name__".to_owned(), "id".to_owned()], true));
}
