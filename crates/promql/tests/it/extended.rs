//! Selectors that are anchored or smoothed, and start timestamps: their switches, and what they count.

use chronolith_model::{Labels, Sample, TenantId};
use chronolith_promql::{EngineOptions, Query};
use chronolith_storage::{Appender, LabelSource, RejectReason, SeriesEntry, WriteBatch};
use chronolith_syntax::ParseOptions;

use crate::dsl::{World, options};

#[test]
fn they_are_off_unless_switched_on() {
    let world = World::with(EngineOptions { parse: ParseOptions::default(), ..options() });
    world.check(
        0,
        &[
            ("m anchored", "error: 1:1: parse error: anchored modifier is experimental and not enabled"),
            (
                "rate(m[5m] smoothed)",
                "error: 1:6: parse error: smoothed modifier is experimental and not enabled",
            ),
            ("info(m)", "error: 1:1: parse error: function \"info\" is not enabled"),
            ("start_timestamp(m)", "error: 1:1: parse error: function \"start_timestamp\" is not enabled"),
        ],
    );
    let parse = ParseOptions { extended_range_selectors: true, ..ParseOptions::default() };
    let world = World::with(EngineOptions { parse, ..options() }).load(0, 10_000, "m_total 1 2 4");
    world.check(15_000, &[("m_total smoothed", "m_total 3"), ("increase(m_total[5s] anchored)", "")]);
}

#[test]
fn samples_within_reach_are_counted() {
    let world = World::new().load(0, 10_000, "m 0+1x60\nn 0+1x60");
    let total = |text: &str| world.run(&Query::instant(text, 400_000)).unwrap().stats.total_queryable_samples;
    assert_eq!(total("rate(m[1m])"), 6);
    assert_eq!(total("rate(m[1m] anchored)"), 36);
    assert_eq!(total("rate(m[1m] smoothed)"), 56);
    assert_eq!(total("m[1m] smoothed"), 7);
    assert_eq!(total("m smoothed"), 0);
    let limited = World::with(EngineOptions { samples_max: 30, ..options() }).load(0, 10_000, "m 0+1x60");
    assert!(limited.at(400_000, "rate(m[1m] anchored)").contains("too many samples"));
    assert!(limited.at(200_000, "rate(m[1m] anchored)").starts_with("{} "));
}

/// One series.
struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

/// A series of deltas: each counts from the one before.
fn deltas(world: &World) {
    let labels = One(Labels::from_pairs([("__name__", "d_total")]));
    let key = world.storage.key_hasher().key(b"d_total");
    let times = || (1..=6_u32).map(|i| i64::from(i) * 10_000);
    let samples: Vec<Sample> = times().map(|t| Sample::new(t, 5.0)).collect();
    let entries: Vec<SeriesEntry> = times()
        .zip(0..)
        .map(|(t, i)| SeriesEntry { start_timestamp: t - 9_999, ..SeriesEntry::of_samples(key, i..i + 1) })
        .collect();
    let batch = WriteBatch::of_samples(&entries, &samples, &labels);
    world.storage.append(&TenantId::default(), &batch).expect("memory takes it");
}

#[test]
fn start_timestamps_count_only_where_switched_on() {
    let cases: [(&str, &str, &str); 6] = [
        ("increase(d_total[1m])", "{} 0", "{} 30"),
        ("irate(d_total[1m])", "{} 0", "{} 0.5"),
        ("resets(d_total[1m])", "{} 0", "{} 5"),
        ("resets(d_total[30s] anchored)", "{} 0", "{} 3"),
        ("start_timestamp(d_total)", "", "{} 50.001"),
        // Two functions that share what is decoded.
        ("increase(d_total[1m]) + resets(d_total[1m])", "{} 0", "{} 35"),
    ];
    for on in [false, true] {
        let world = World::with(EngineOptions { use_start_timestamps: on, ..options() });
        deltas(&world);
        for (text, off_result, on_result) in cases {
            assert_eq!(world.at(60_000, text), if on { on_result } else { off_result }, "{text}, on: {on}");
        }
    }
}
