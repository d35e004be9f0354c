//! What is told of how series are read.

use chronolith_model::{MatchOp, Matcher, TenantId, TimeRange};
use chronolith_storage::{
    Queryable as _, ReadStats, Samples, SelectHints, SelectRequest, conformance::block_on,
};

use crate::{
    fixture::{Content, compiled},
    sim::{Sim, WINDOW},
};

/// Reads everything.
fn read(sim: &Sim) -> ReadStats {
    let matchers = compiled(&[Matcher::new("__name__", MatchOp::Regex, ".+")]);
    let request = SelectRequest { matchers, range: TimeRange::ALL, hints: SelectHints::default() };
    let querier = sim.db().querier(&TenantId::default(), TimeRange::ALL).expect("open");
    let set = block_on(querier.select(&request)).expect("selected");
    let stats = set.read_stats();
    assert_eq!((stats.frames, stats.cache_hits, stats.cache_misses, stats.copied_bytes), (0, 0, 0, 0));
    let mut samples = Samples::default();
    let batch = block_on(set.fetch(0..set.len())).expect("fetched");
    for index in 0..set.len() {
        batch.read(index, &mut samples).expect("read");
    }
    drop(batch);
    set.read_stats()
}

#[test]
fn series_are_counted_where_they_are_and_pieces_as_they_are_opened() {
    let sim = Sim::new(7);
    let mut model = Content::new();
    sim.scrape(&mut model, 12, 3 * WINDOW / 60_000);
    let series = model.len() as u64;
    let blocks = sim.db().stats().blocks.blocks;
    assert!(blocks > 0, "{:?}", sim.db().stats().jobs);
    let first = read(&sim);
    assert_eq!((first.memory_series, first.blocks), (series, blocks), "{first:?}");
    assert_eq!(first.block_series, series * blocks, "each is in each");
    assert!(first.frames >= blocks && first.cache_misses >= first.frames, "{first:?}");
    assert!(first.read_bytes > 0 && first.copied_bytes > 0, "{first:?}");
    let second = read(&sim);
    assert_eq!((second.frames, second.cache_misses, second.read_bytes), (first.frames, 0, 0), "{second:?}");
    assert_eq!(second.cache_hits, first.cache_hits + first.cache_misses);
}
