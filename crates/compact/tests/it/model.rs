//! Blocks with samples, and what an executor does with plans.

use std::collections::BTreeMap;

use chronolith_compact::{Availability, BlockId, BlockInfo, BlockRange, PARTS_MAX, Plan, Priorities, Reason};

/// A part of a block: its samples by timestamp, each with the number of the part it was first in and how often it has
/// been written since.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    range: BlockRange,
    priority: u64,
    samples: BTreeMap<i64, Sample>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) origin: u64,
    pub(crate) rewrites: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) info: BlockInfo,
    parts: Vec<Part>,
}

/// All blocks, and what reading them has to give.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store {
    pub(crate) blocks: Vec<Block>,
    truth: BTreeMap<i64, u64>,
    created: u64,
}

pub(crate) fn range(min: i64, max: i64) -> BlockRange {
    BlockRange::new(min, max).expect("not empty")
}

impl Store {
    /// A new block of one part with samples at `times`, which lie in `range`.
    pub(crate) fn add(&mut self, range: BlockRange, times: impl IntoIterator<Item = i64>) -> BlockId {
        self.created += 1;
        let priority = self.created;
        let samples: BTreeMap<i64, Sample> =
            times.into_iter().map(|t| (t, Sample { origin: priority, rewrites: 0 })).collect();
        assert!(samples.keys().all(|&t| range.min() < t && t <= range.max()));
        for &t in samples.keys() {
            // What was there first counts.
            self.truth.entry(t).or_insert(priority);
        }
        // Ids are no help: they do not order as priorities do.
        let id = BlockId(u128::from(priority.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        self.place(id, range, 1, vec![Part { range, priority, samples }]);
        id
    }

    fn place(&mut self, id: BlockId, range: BlockRange, level: u32, parts: Vec<Part>) {
        let samples = parts.iter().map(|part| part.samples.len() as u64).sum();
        let info = BlockInfo {
            id,
            range,
            level,
            bytes: samples + 1,
            samples,
            series: 1,
            parts: parts.len() as u32,
            priorities: Priorities {
                lowest: parts.iter().map(|part| part.priority).min().expect("a part"),
                highest: parts.iter().map(|part| part.priority).max().expect("a part"),
            },
            tombstones: 0,
            deleted_samples: 0,
            shipped: false,
            availability: Availability::Free,
        };
        self.blocks.push(Block { info, parts });
    }

    pub(crate) fn infos(&self) -> Vec<BlockInfo> {
        self.blocks.iter().map(|block| block.info.clone()).collect()
    }

    /// Every sample as a query sees it: of several at one timestamp, that of the part with the lowest number.
    fn read(&self) -> BTreeMap<i64, u64> {
        let mut seen: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
        for part in self.blocks.iter().flat_map(|block| &block.parts) {
            for (&t, sample) in &part.samples {
                let entry = seen.entry(t).or_insert((part.priority, sample.origin));
                assert!(entry.0 != part.priority || entry.1 == sample.origin, "nothing decides at {t}");
                *entry = (*entry).min((part.priority, sample.origin));
            }
        }
        seen.into_iter().map(|(t, (_, origin))| (t, origin)).collect()
    }

    /// Queries get what they got before any compaction.
    pub(crate) fn check(&self) {
        assert_eq!(self.read(), self.truth);
    }

    /// Carries `plan` out, as an executor does: parts that do not overlap are copied, others merged.
    pub(crate) fn apply(&mut self, plan: &Plan) {
        let (inputs, rest): (Vec<Block>, Vec<Block>) =
            std::mem::take(&mut self.blocks).into_iter().partition(|b| plan.inputs.contains(&b.info.id));
        self.blocks = rest;
        check_plan(plan, &inputs);
        self.created += 1;
        let id = BlockId(u128::from(self.created.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
        let mut parts: Vec<Part> = inputs.into_iter().flat_map(|block| block.parts).collect();
        for sample in parts.iter_mut().flat_map(|part| part.samples.values_mut()) {
            sample.rewrites += 1;
        }
        parts.sort_by_key(|part| part.range.min());
        let all = parts.len() as u32 > PARTS_MAX;
        let mut merged: Vec<Vec<Part>> = Vec::new();
        for part in parts {
            match merged.last_mut() {
                Some(run) if all || run.iter().any(|other| other.range.overlaps(&part.range)) => {
                    run.push(part)
                }
                _ => merged.push(vec![part]),
            }
        }
        let parts = merged.into_iter().map(merge).collect();
        self.place(id, plan.range, plan.level, parts);
    }

    /// How often the samples have been written after the first time: the most, and in the mean.
    pub(crate) fn rewrites(&self) -> (u32, f64) {
        let samples =
            self.blocks.iter().flat_map(|block| &block.parts).flat_map(|part| part.samples.values());
        let (mut most, mut sum, mut count) = (0, 0_u64, 0_u64);
        for sample in samples {
            most = most.max(sample.rewrites);
            sum += u64::from(sample.rewrites);
            count += 1;
        }
        (most, sum as f64 / count.max(1) as f64)
    }
}

/// One part of several.
fn merge(mut run: Vec<Part>) -> Part {
    // Higher numbers first, to be overwritten by lower ones.
    run.sort_by_key(|part| std::cmp::Reverse(part.priority));
    let range = run.iter().map(|part| part.range).reduce(|a, b| a.hull(&b)).expect("not empty");
    let priority = run.iter().map(|part| part.priority).min().expect("not empty");
    let mut samples = BTreeMap::new();
    run.into_iter().for_each(|part| samples.extend(part.samples));
    Part { range, priority, samples }
}

/// What holds for any plan.
fn check_plan(plan: &Plan, inputs: &[Block]) {
    assert_eq!(plan.inputs.len(), inputs.len(), "all inputs are there, once: {plan:?}");
    assert!(inputs.iter().all(|block| block.info.availability == Availability::Free), "{plan:?}");
    let hull = inputs.iter().map(|block| block.info.range).reduce(|a, b| a.hull(&b));
    assert_eq!(Some(plan.range), hull);
    assert_eq!(plan.bytes, inputs.iter().map(|block| block.info.bytes).sum::<u64>());
    assert!(plan.parts >= 1 && plan.parts <= PARTS_MAX);
    assert!(inputs.iter().all(|block| block.info.level < plan.level));
    assert_eq!(plan.reason == Reason::Tombstones, inputs.len() == 1);
    let of = |id: &BlockId| inputs.iter().find(|block| block.info.id == *id).expect("there");
    let order: Vec<u64> = plan.inputs.iter().map(|id| of(id).info.priorities.lowest).collect();
    assert!(order.is_sorted(), "in the order of precedence: {order:?}");
}
