//! One-to-one, many-to-one and one-to-many matching.
//!
//! Signatures are computed once. A signature with one series on the "one" side, whose results cannot clash, is
//! worked on column by column; the others, and all if missing sides are filled, step by step. Which error is told is
//! that of the earliest step, as if all steps had been evaluated one after the other.

use std::collections::BTreeMap;

use chronolith_model::Labels;
use chronolith_syntax::ast::{BinaryOp, Cardinality, Matching};
use hashbrown::{HashMap, HashSet};
use parking_lot::Mutex;
use rayon::{ThreadPool, prelude::*};

use super::{
    arithmetic::{arithmetic, changes_schema, compare, trims},
    binary::{Signatures, match_labels},
    names::without_metadata,
    operands::{Operand, Outcome, combine},
};
use crate::{
    annotations::Annotation,
    api::QueryError,
    limits::{Interrupt, STAGE_EVALUATION},
    plan::BinaryVectors,
    series::{ABSENT, Column, SeriesColumn, is_absent, not_absent},
};

/// Values below which a second thread is not worth it.
const PARALLEL_VALUES: usize = 1 << 14;

/// An arithmetic or comparison operator on two vectors. For one-to-many the sides are swapped: `many` is then the
/// right side.
pub(super) struct Join<'a> {
    op: BinaryOp,
    return_bool: bool,
    matching: &'a Matching,
    delayed: bool,
    pool: &'a ThreadPool,
    interrupt: &'a Interrupt,
    steps: usize,
    swapped: bool,
    /// What a missing series of the "one" side counts as.
    fill_one: Option<f64>,
    /// What a missing series of the "many" side counts as.
    fill_many: Option<f64>,
    /// What there is to tell about pairs: of each step, that of the last one.
    notes: Mutex<BTreeMap<usize, (Place, Annotation)>>,
}

/// The series of one signature, by index.
#[derive(Clone, Debug, Default)]
struct Group {
    many: Vec<usize>,
    one: Vec<usize>,
}

/// Where an output stands among the others: filled "many" sides last, then by series of the many and the one side.
type Place = (bool, usize, usize);

/// An error and when it would have been met: step, pass over a side, series of that side.
struct Clash {
    when: (usize, u8, usize),
    error: QueryError,
}

/// The two sides and at which steps anything is evaluated.
struct Sides<'a> {
    many: &'a [SeriesColumn],
    one: &'a [SeriesColumn],
    active: Vec<bool>,
}

impl<'a> Join<'a> {
    pub(super) fn new(
        binary: &'a BinaryVectors,
        delayed: bool,
        pool: &'a ThreadPool,
        interrupt: &'a Interrupt,
        steps: usize,
    ) -> Self {
        let matching = &binary.matching;
        let swapped = matching.card == Cardinality::OneToMany;
        // Not swapped for one-to-many: `fill_left` fills the many side there too, as Prometheus has it.
        let (fill_many, fill_one) = (matching.fill_left, matching.fill_right);
        let BinaryVectors { op, return_bool, .. } = *binary;
        Self {
            op,
            return_bool,
            matching,
            delayed,
            pool,
            interrupt,
            steps,
            swapped,
            fill_one,
            fill_many,
            notes: Mutex::default(),
        }
    }

    /// What there is to tell about the result, in the order of the steps.
    pub(super) fn noted(self) -> impl Iterator<Item = Annotation> {
        self.notes.into_inner().into_values().map(|(_, annotation)| annotation)
    }

    fn note(&self, step: usize, place: Place, annotation: Annotation) {
        let mut notes = self.notes.lock();
        if notes.get(&step).is_none_or(|(known, _)| *known <= place) {
            notes.insert(step, (place, annotation));
        }
    }

    pub(super) fn run(
        &self,
        lhs: Vec<SeriesColumn>,
        rhs: Vec<SeriesColumn>,
    ) -> Result<Vec<SeriesColumn>, QueryError> {
        let (mut many, one) = if self.swapped { (rhs, lhs) } else { (lhs, rhs) };
        let fills = self.fill_one.is_some() || self.fill_many.is_some();
        if (many.is_empty() && one.is_empty()) || (!fills && (many.is_empty() || one.is_empty())) {
            return Ok(Vec::new());
        }
        let mut signatures = Signatures::new(self.matching);
        let many_numbers = signatures.number(&many);
        let one_numbers = signatures.number(&one);
        let mut groups = vec![Group::default(); signatures.len()];
        many_numbers.iter().enumerate().for_each(|(index, number)| groups[*number].many.push(index));
        one_numbers.iter().enumerate().for_each(|(index, number)| groups[*number].one.push(index));

        let mut outputs: Vec<(Place, SeriesColumn)> = Vec::with_capacity(many.len());
        let mut columnwise: Vec<(usize, usize, Labels)> = Vec::new();
        let mut clash: Option<Clash> = None;
        let mut sides: Option<Sides<'_>> = None;
        for group in &groups {
            if !fills && (group.one.is_empty() || (group.many.is_empty() && group.one.len() == 1)) {
                continue;
            }
            if !fills && let Some(labels) = self.unclashing(group, &many, &one) {
                columnwise.extend(
                    group.many.iter().zip(labels).map(|(many, labels)| (*many, group.one[0], labels)),
                );
                continue;
            }
            self.interrupt.check(STAGE_EVALUATION)?;
            let sides = sides.get_or_insert_with(|| Sides {
                active: self.active(&many, &one),
                many: &many,
                one: &one,
            });
            match self.stepwise(group, sides) {
                Ok(more) => outputs.extend(more),
                Err(new) if clash.as_ref().is_none_or(|known| new.when < known.when) => clash = Some(new),
                Err(_) => {}
            }
        }
        if let Some(clash) = clash {
            return Err(clash.error);
        }
        let first = outputs.len();
        for (index, one, labels) in columnwise {
            let column = std::mem::take(&mut many[index].column);
            outputs.push(((false, index, one), SeriesColumn { labels, drop_name: self.return_bool, column }));
        }
        let combine = |(place, series): &mut (Place, SeriesColumn)| {
            self.combine(*place, &mut series.column, &one[place.2].column);
        };
        if outputs.len().saturating_mul(self.steps) < PARALLEL_VALUES {
            outputs[first..].iter_mut().for_each(combine);
        } else {
            self.pool.install(|| outputs[first..].par_iter_mut().for_each(combine));
        }
        self.interrupt.check(STAGE_EVALUATION)?;
        outputs.retain(|(_, series)| !series.column.is_empty());
        outputs.sort_by_key(|(place, _)| *place);
        Ok(outputs.into_iter().map(|(_, series)| series).collect())
    }

    /// The labels of the results of a group that has one series on the "one" side and whose results never clash.
    fn unclashing(&self, group: &Group, many: &[SeriesColumn], one: &[SeriesColumn]) -> Option<Vec<Labels>> {
        let [only] = group.one[..] else { return None };
        if trims(self.op) {
            return None;
        }
        if self.matching.card == Cardinality::OneToOne && group.many.len() > 1 {
            return None;
        }
        let labels: Vec<Labels> = (group.many.iter())
            .map(|index| self.result_labels(&many[*index].labels, &one[only].labels))
            .collect();
        if labels.len() > 1 {
            let distinct: HashSet<&Labels> = labels.iter().collect();
            if distinct.len() < labels.len() {
                return None;
            }
        }
        Some(labels)
    }

    /// At which steps the operator looks at anything: where one side has nothing at all, clashes on the other do not
    /// matter.
    fn active(&self, many: &[SeriesColumn], one: &[SeriesColumn]) -> Vec<bool> {
        let any = |vector: &[SeriesColumn]| {
            let mut any = vec![false; self.steps];
            for series in vector {
                series.column.mark(&mut any);
            }
            any
        };
        let fills = self.fill_one.is_some() || self.fill_many.is_some();
        any(many).into_iter().zip(any(one)).map(|(a, b)| if fills { a || b } else { a && b }).collect()
    }

    /// Evaluates a group step by step.
    fn stepwise(&self, group: &Group, sides: &Sides<'_>) -> Result<Vec<(Place, SeriesColumn)>, Clash> {
        let mut slots =
            Slots { join: self, by_place: HashMap::new(), label_numbers: HashMap::new(), seen: Vec::new() };
        for step in (0..self.steps).filter(|step| sides.active[*step]) {
            let many = |index: &usize| Some((*index, Operand::at(&sides.many[*index].column, step)?));
            let present = |index: &usize| Some((*index, Operand::at(&sides.one[*index].column, step)?));
            let mut ones = group.one.iter().filter_map(present);
            let one = ones.next();
            if let (Some((first, _)), Some((second, _))) = (one, ones.next()) {
                return Err(Clash {
                    when: (step, 0, second),
                    error: self.many_to_many(&sides.one[first].labels, &sides.one[second].labels),
                });
            }
            let mut matched = false;
            for (index, value) in group.many.iter().filter_map(many) {
                let labels = &sides.many[index].labels;
                let (place, other, against) = match (one, self.fill_one) {
                    (Some((one, against)), _) => {
                        ((false, index, one), sides.one[one].labels.clone(), against)
                    }
                    (None, Some(fill)) => {
                        let labels = match_labels(self.matching, labels);
                        ((false, index, usize::MAX), labels, Operand::Float(fill))
                    }
                    (None, None) => continue,
                };
                let Some(outcome) = self.outcome(step, place, value, against) else { continue };
                if matched && self.matching.card == Cardinality::OneToOne {
                    return Err(Clash { when: (step, 1, index), error: must_be_explicit() });
                }
                matched = true;
                slots
                    .put(place, step, (labels, &other), outcome)
                    .map_err(|()| Clash { when: (step, 1, index), error: must_be_unique() })?;
            }
            if let (false, Some((index, value)), Some(fill)) = (matched, one, self.fill_many) {
                let place = (true, index, index);
                let Some(outcome) = self.outcome(step, place, Operand::Float(fill), value) else { continue };
                let labels = match_labels(self.matching, &sides.one[index].labels);
                slots
                    .put(place, step, (&labels, &sides.one[index].labels), outcome)
                    .map_err(|()| Clash { when: (step, 2, index), error: must_be_unique() })?;
            }
        }
        Ok(slots.by_place.into_iter().map(|(place, slot)| (place, slot.series)).collect())
    }

    /// The value of a pair of a many and a one side; [`ABSENT`] where a comparison filters it out.
    fn value(&self, many: f64, one: f64) -> f64 {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        if !self.op.is_comparison() {
            not_absent(arithmetic(self.op, left, right))
        } else if self.return_bool {
            f64::from(u8::from(compare(self.op, left, right)))
        } else if compare(self.op, left, right) {
            left
        } else {
            ABSENT
        }
    }

    fn combine(&self, place: Place, many: &mut Column, one: &Column) {
        let of_histograms = if many.lane().is_some() || one.lane().is_some() {
            self.of_histograms(place, many, one)
        } else {
            Vec::new()
        };
        many.take_lane();
        for (many, one) in many.values_mut().iter_mut().zip(one.values()) {
            if !is_absent(*many) {
                *many = if is_absent(*one) { ABSENT } else { self.value(*many, *one) };
            }
        }
        for (step, outcome) in of_histograms {
            outcome.put(many, step);
        }
    }

    /// What comes of the steps at which a side has a histogram.
    fn of_histograms(&self, place: Place, many: &Column, one: &Column) -> Vec<(usize, Outcome)> {
        let mut outcomes = Vec::new();
        if self.interrupt.check(STAGE_EVALUATION).is_err() {
            return outcomes;
        }
        for step in 0..self.steps {
            let pair = (Operand::at(many, step), Operand::at(one, step));
            let (Some(many), Some(one)) = pair else { continue };
            if let (Operand::Float(_), Operand::Float(_)) = (many, one) {
                continue;
            }
            outcomes.extend(self.outcome(step, place, many, one).map(|outcome| (step, outcome)));
        }
        outcomes
    }

    /// What comes of a pair of a many and a one side; `None` where the operator has no result for it.
    fn outcome(&self, step: usize, place: Place, many: Operand<'_>, one: Operand<'_>) -> Option<Outcome> {
        let (left, right) = if self.swapped { (one, many) } else { (many, one) };
        match combine(self.op, self.return_bool, left, right) {
            Ok((outcome, None)) => Some(outcome),
            Ok((outcome, Some(info))) => {
                self.note(step, place, info);
                Some(outcome)
            }
            Err(reason) => {
                self.note(step, place, reason);
                None
            }
        }
    }

    fn result_labels(&self, many: &Labels, one: &Labels) -> Labels {
        let drops_name = changes_schema(self.op) || (self.return_bool && !self.delayed);
        let labels = if drops_name { without_metadata(many) } else { many.clone() };
        let labels = if self.matching.card == Cardinality::OneToOne {
            labels.retain(|name| self.matching.labels.iter().any(|label| label == name) == self.matching.on)
        } else {
            labels
        };
        if self.matching.include.is_empty() {
            return labels;
        }
        let mut builder = labels.to_builder();
        for name in &self.matching.include {
            builder.set(name, one.get(name).unwrap_or_default());
        }
        builder.build()
    }

    fn many_to_many(&self, first: &Labels, second: &Labels) -> QueryError {
        let group = match_labels(self.matching, second);
        let side = if self.swapped { "left" } else { "right" };
        let mut both = [first.to_string(), second.to_string()];
        both.sort_unstable();
        let [first, second] = both;
        QueryError::Execution(format!(
            "found duplicate series for the match group {group} on the {side} hand-side of the operation: [{first}, \
             {second}];many-to-many matching not allowed: matching labels must be unique on one side"
        ))
    }
}

fn must_be_explicit() -> QueryError {
    QueryError::Execution(
        "multiple matches for labels: many-to-one matching must be explicit (group_left/group_right)"
            .to_owned(),
    )
}

fn must_be_unique() -> QueryError {
    QueryError::Execution(
        "multiple matches for labels: grouping labels must ensure unique matches".to_owned(),
    )
}

/// The outputs of a group.
struct Slots<'a> {
    join: &'a Join<'a>,
    by_place: HashMap<Place, Slot>,
    label_numbers: HashMap<Labels, usize>,
    /// By number of labels, one past the last step that gave them.
    seen: Vec<usize>,
}

struct Slot {
    series: SeriesColumn,
    labels: usize,
}

impl Slots<'_> {
    /// Takes the outcome of a pair at `step`; an error if other series of this group gave the same labels there.
    fn put(
        &mut self,
        place: Place,
        step: usize,
        (many, one): (&Labels, &Labels),
        outcome: Outcome,
    ) -> Result<(), ()> {
        let join = self.join;
        let (label_numbers, seen) = (&mut self.label_numbers, &mut self.seen);
        let slot = self.by_place.entry(place).or_insert_with(|| {
            let labels = join.result_labels(many, one);
            let number = *label_numbers.entry(labels.clone()).or_insert_with(|| {
                seen.push(0);
                seen.len() - 1
            });
            let column = Column::absent(join.steps);
            Slot { series: SeriesColumn { labels, drop_name: join.return_bool, column }, labels: number }
        });
        if join.matching.card != Cardinality::OneToOne {
            if self.seen[slot.labels] == step + 1 {
                return Err(());
            }
            self.seen[slot.labels] = step + 1;
        }
        outcome.put(&mut slot.series.column, step);
        Ok(())
    }
}
