//! `info()`: what it selects, counts and refuses.

use chronolith_model::{Histogram, HistogramSample, Labels, Sample, TenantId, histogram::HistogramParts};
use chronolith_promql::{Engine, EngineOptions, Query};
use chronolith_storage::{Appender, LabelSource, RejectReason, SeriesEntry, WriteBatch};

use crate::dsl::{World, options, show};

fn targets(options: EngineOptions) -> World {
    World::with(options).load(
        0,
        10_000,
        "m{instance=\"a\", job=\"j\"} 0+1x30
         m{instance=\"b\", job=\"j\"} 0+1x30
         m{instance=\"c\", job=\"j\"} 0+1x30
         target_info{instance=\"a\", job=\"j\", v=\"1\"} 1x30
         target_info{instance=\"b\", job=\"j\", v=\"2\"} 1x30
         target_info{instance=\"x\", job=\"j\", v=\"3\"} 1x30",
    )
}

#[test]
fn only_info_series_of_what_there_is_are_read() {
    let world = targets(options());
    let stats = |query: &Query| world.run(query).unwrap().stats;
    let total = |text: &str| stats(&Query::range(text, 0, 40_000, 10_000)).total_queryable_samples;
    assert_eq!(total("m"), 15);
    assert_eq!(total("info(m)"), 15 + 10);
    assert_eq!(total("info(m @ 10)"), 15 + 10, "once, and counted at each step");
    assert_eq!(total("info(m{instance=\"a\"})"), 5 + 5);
    assert_eq!(total("info(m, {v=\"2\"})"), 15 + 5);
    assert_eq!(total("info(m{instance=\"c\"})"), 5);
    assert_eq!(total("info(nothing)"), 0);
    let per_step = stats(&Query::range("info(m)", 290_000, 310_000, 10_000)).samples_per_step;
    assert_eq!(per_step, [(290_000, 5), (300_000, 5), (310_000, 5)]);
}

#[test]
fn limits_hold_for_info_series_too() {
    let refused = |options: EngineOptions| targets(options).at(0, "info(m)");
    assert!(refused(EngineOptions { samples_max: 4, ..options() }).contains("too many samples"));
    assert!(refused(EngineOptions { samples_max: 5, ..options() }).starts_with("m{"));
    let series = refused(EngineOptions { series_max: 4, ..options() });
    assert_eq!(series, "error: query selects more than 4 series, the limit of this server");
    let world = targets(EngineOptions { memory_max_bytes: 15_000, ..options() });
    let counted = |text: &str| world.range((0, 299_000, 1_000), text);
    assert!(counted("count(m)").starts_with("{} 3@0"));
    assert!(
        counted("count(info(m))").contains("more than 15000 bytes of memory"),
        "columns, and info series by step"
    );
}

/// More identities than a selection is narrowed to; some have one label, some the other.
#[test]
fn many_identities_are_told_apart() {
    let world = World::new();
    let write = |name: &str, labels: &[(&str, String)]| {
        let pairs = labels.iter().map(|(name, value)| (*name, value.clone()));
        let labels = Labels::from_pairs(pairs.chain([("__name__", name.to_owned())]));
        world.write(labels, vec![Sample::new(0, 1.0)]);
    };
    let instance = |i: usize| ("instance", format!("a-rather-long-name-of-an-instance-{i}"));
    for i in 0..1_500 {
        write("m", &[instance(i), ("job", "j".to_owned())]);
    }
    for i in 0..2_000 {
        write("target_info", &[instance(i), ("job", "j".to_owned()), ("v", (i % 3).to_string())]);
        write("target_info", &[instance(i), ("job", "other".to_owned()), ("v", "wrong".to_owned())]);
    }
    write("target_info", &[("job", "j".to_owned()), ("v", "wrong".to_owned())]);
    assert_eq!(world.at(0, "count by (v) (info(m))"), "{v=\"0\"} 500; {v=\"1\"} 500; {v=\"2\"} 500");
    let stats = world.run(&Query::instant("info(m)", 0)).unwrap().stats;
    assert_eq!(stats.total_queryable_samples, 3_000);
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let mut world = World::new();
    for i in 0..500 {
        let instance = format!("i{i:03}");
        let pairs = |name: &str| {
            [("__name__", name.to_owned()), ("instance", instance.clone()), ("job", format!("{}", i % 2))]
        };
        let samples = |from: i64, to: i64| (from..to).map(|t| Sample::new(t * 15_000, t as f64)).collect();
        world.write(Labels::from_pairs(pairs("m")), samples(0, 40));
        for (version, from, to) in [("1", 0, 10 + i % 7), ("2", 18, 40)] {
            let labels = Labels::from_pairs(pairs("target_info")).to_builder().set("v", version).build();
            world.write(labels, samples(from, to));
        }
    }
    let query = Query::range("info(m{job=\"1\"}) or info(m, {v=~\".+\"})", 0, 600_000, 15_000);
    let mut results = Vec::new();
    for threads in [1, 2, 8] {
        world.engine = Engine::new(EngineOptions { threads, ..options() });
        results.push(show(&world.run(&query).unwrap()));
    }
    assert_eq!(results[0].matches("v=\"2\"").count(), 500);
    assert!(results[1] == results[0] && results[2] == results[0]);
    // In the order of the vector.
    let instant = world.at(0, "info(m{instance=~\"i00.\"})");
    let order: Vec<usize> = (0..10).map(|i| instant.find(&format!("i00{i}")).unwrap()).collect();
    assert!(order.is_sorted(), "{instant}");
}

/// One series.
struct One(Labels);

impl LabelSource for One {
    fn labels(&self, _: usize) -> Result<Labels, RejectReason> {
        Ok(self.0.clone())
    }
}

#[test]
fn histograms_are_no_info_series() {
    let world = targets(options());
    let labels =
        One(Labels::from_pairs([("__name__", "h_info"), ("instance", "a"), ("job", "j"), ("x", "y")]));
    let parts = HistogramParts { count: 1.0, sum: 1.0, zero_count: 1.0, ..HistogramParts::default() };
    let histogram: Histogram = parts.build(None).expect("a valid histogram").into();
    let histograms = [
        HistogramSample { timestamp: 20_000, histogram },
        HistogramSample { timestamp: 40_000, histogram: Histogram::stale() },
    ];
    let key = world.storage.key_hasher().key(b"h_info");
    let entry = SeriesEntry { histograms: 0..2, ..SeriesEntry::of_samples(key, 0..0) };
    let batch = WriteBatch { series: &[entry], samples: &[], histograms: &histograms, labels: &labels };
    world.storage.append(&TenantId::default(), &batch).expect("memory takes it");

    let text = "info(m{instance=\"a\"}, {__name__=\"h_info\"})";
    let error = "error: this should be an info metric, with float samples: \
                 {__name__=\"h_info\", instance=\"a\", job=\"j\", x=\"y\"}";
    assert_eq!(world.at(10_000, text), "m{instance=\"a\", job=\"j\"} 1");
    assert_eq!(world.at(20_000, text), error);
    assert_eq!(world.at(30_000, text), error);
    assert_eq!(world.at(40_000, text), "m{instance=\"a\", job=\"j\"} 4");
}
