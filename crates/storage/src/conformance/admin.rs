//! Deletion, of engines that can delete.

use chronolith_model::{HistogramSample, Labels, MatchOp, Matcher, Sample, TenantId, TimeRange};

use super::{all, bits, compiled, extras, read, series, view, write};
use crate::{admin::Admin, append::Appender, error::StorageError, query::Queryable};

/// Checks an engine that can delete; `make` gives a new, empty one each time.
///
/// # Panics
/// When the engine does something else than the contract says.
pub fn check_admin<E: Appender + Queryable + Admin>(mut make: impl FnMut() -> E) {
    deletes_what_is_meant(&make());
    refuses_to_delete_without_matchers(&make());
    keeps_tenants_apart(&make());
    what_comes_later_is_stored_anew(&make());
    deletes_again_and_in_empty_ranges(&make());
    if make().stores().histograms {
        deletes_histograms_too(&make());
    }
}

fn delete<E: Admin>(engine: &E, sets: &[&[Matcher]], range: TimeRange) {
    let sets: Vec<_> = sets.iter().map(|set| compiled(set)).collect();
    engine.delete_series(&TenantId::default(), &sets, range).expect("it can be deleted");
}

/// The timestamps of series `m` by job; series without samples are left out.
fn shown<E: Queryable>(engine: &E) -> Vec<(String, Vec<i64>)> {
    let found = all(engine, "m").into_iter().filter(|(_, samples)| samples.newest().is_some());
    found
        .map(|(labels, samples)| (labels.get("job").unwrap_or_default().to_owned(), samples.timestamps))
        .collect()
}

fn by_job(expected: &[(&str, &[i64])]) -> Vec<(String, Vec<i64>)> {
    expected.iter().map(|(job, times)| ((*job).to_owned(), times.to_vec())).collect()
}

const FOUR: [(i64, f64); 4] = [(1_000, 1.0), (2_000, 2.0), (3_000, 3.0), (4_000, 4.0)];

fn deletes_what_is_meant<E: Appender + Queryable + Admin>(engine: &E) {
    let batch =
        [series("m", "a", &FOUR), series("m", "b", &FOUR), series("m", "c", &FOUR), series("n", "a", &FOUR)];
    write(engine, &TenantId::default(), &batch);
    let job = |value: &str| Matcher::equal("job", value);
    let name = || Matcher::equal("__name__", "m");
    // Both ends are included; a series that two sets select is deleted once.
    delete(
        engine,
        &[&[name(), job("a")], &[name(), Matcher::new("job", MatchOp::Regex, "a|b")]],
        TimeRange::new(2_000, 3_000),
    );
    let rest: &[i64] = &[1_000, 4_000];
    let whole: &[i64] = &[1_000, 2_000, 3_000, 4_000];
    assert_eq!(shown(engine), by_job(&[("a", rest), ("b", rest), ("c", whole)]));
    assert_eq!(all(engine, "n")[0].1.timestamps, whole, "another metric");
    let querier = view(engine, &TenantId::default());
    let part = read(&*querier, vec![name(), job("a")], TimeRange::new(1_001, 3_999));
    assert!(part.iter().all(|(_, samples)| samples.newest().is_none()), "within what is deleted: {part:?}");
    delete(engine, &[&[name(), Matcher::new("job", MatchOp::NotEqual, "a")]], TimeRange::ALL);
    assert_eq!(shown(engine), by_job(&[("a", rest)]));
    engine.clean_tombstones().expect("the rest can be cleaned");
    assert_eq!(shown(engine), by_job(&[("a", rest)]), "cleaning changes nothing");
    let expected = [(1_000, 1.0_f64.to_bits()), (4_000, 4.0_f64.to_bits())];
    assert_eq!(bits(&all(engine, "m")[0].1), expected);
}

fn refuses_to_delete_without_matchers<E: Appender + Queryable + Admin>(engine: &E) {
    write(engine, &TenantId::default(), &[series("m", "a", &FOUR)]);
    for sets in [vec![], vec![vec![]], vec![compiled(&[Matcher::equal("job", "a")]), vec![]]] {
        let refused = engine.delete_series(&TenantId::default(), &sets, TimeRange::ALL);
        assert!(matches!(refused, Err(StorageError::Invalid { .. })), "{refused:?} of {} sets", sets.len());
    }
    assert_eq!(shown(engine)[0].1.len(), 4, "nothing is deleted");
}

fn keeps_tenants_apart<E: Appender + Queryable + Admin>(engine: &E) {
    let other = TenantId::new("other").expect("a valid id");
    for tenant in [&TenantId::default(), &other] {
        write(engine, tenant, &[series("m", "a", &FOUR)]);
    }
    let sets = [compiled(&[Matcher::equal("job", "a")])];
    engine.delete_series(&other, &sets, TimeRange::ALL).expect("it can be deleted");
    let nobody = TenantId::new("nobody").expect("a valid id");
    engine.delete_series(&nobody, &sets, TimeRange::ALL).expect("nothing is there");
    assert_eq!(shown(engine), by_job(&[("a", &[1_000, 2_000, 3_000, 4_000])]));
    let found = read(&*view(engine, &other), vec![Matcher::equal("job", "a")], TimeRange::ALL);
    assert!(found.iter().all(|(_, samples)| samples.newest().is_none()));
}

fn what_comes_later_is_stored_anew<E: Appender + Queryable + Admin>(engine: &E) {
    let tenant = TenantId::default();
    write(engine, &tenant, &[series("m", "a", &FOUR), series("m", "b", &FOUR)]);
    delete(engine, &[&[Matcher::equal("job", "a")]], TimeRange::ALL);
    let again = [
        series("m", "a", &[(5_000, 5.0)]),
        series("m", "b", &[(5_000, 5.0)]),
        series("m", "c", &[(6_000, 6.0)]),
    ];
    assert_eq!(write(engine, &tenant, &again).stored, 3);
    let whole: &[i64] = &[1_000, 2_000, 3_000, 4_000, 5_000];
    assert_eq!(shown(engine), by_job(&[("a", &[5_000]), ("b", whole), ("c", &[6_000])]));
}

fn deletes_again_and_in_empty_ranges<E: Appender + Queryable + Admin>(engine: &E) {
    engine.clean_tombstones().expect("nothing is there");
    let sets: &[&[Matcher]] = &[&[Matcher::equal("job", "a")]];
    delete(engine, sets, TimeRange::ALL);
    write(engine, &TenantId::default(), &[series("m", "a", &FOUR)]);
    delete(engine, sets, TimeRange::new(3_000, 2_000));
    delete(engine, sets, TimeRange::new(9_000, 10_000));
    delete(engine, &[&[Matcher::equal("job", "nobody")]], TimeRange::ALL);
    assert_eq!(shown(engine)[0].1.len(), 4);
    for _ in 0..2 {
        delete(engine, sets, TimeRange::new(i64::MIN, 3_000));
        assert_eq!(shown(engine), by_job(&[("a", &[4_000])]));
    }
}

fn deletes_histograms_too<E: Appender + Queryable + Admin>(engine: &E) {
    let histograms: Vec<HistogramSample> = (1..=3)
        .map(|n| HistogramSample { timestamp: n * 1_000, histogram: extras::counter(n as u64) })
        .collect();
    extras::append(engine, "a", &[Sample::new(4_000, 4.0)], &[], 0);
    extras::append(engine, "b", &[], &histograms, 0);
    delete(engine, &[&[Matcher::equal("__name__", "m")]], TimeRange::new(2_000, 4_000));
    let found = all(engine, "m");
    let of = |job: &str| {
        let samples = found.iter().find(|(labels, _): &&(Labels, _)| labels.get("job") == Some(job));
        samples
            .map(|(_, samples)| (samples.timestamps.clone(), samples.histogram_timestamps.clone()))
            .unwrap_or_default()
    };
    assert_eq!((of("a"), of("b")), ((vec![], vec![]), (vec![], vec![1_000])));
}
