//! The tree that is told, out of a plan and the costs of its operators.

use std::{fmt, sync::Arc, time::Duration};

use chronolith_storage::SeriesSet;

use super::{
    Costs, DEPTH_MAX, EXPR_BYTES_MAX, Explain, ExplainMode, ExplainNode, ExplainSelection,
    MATCHERS_BYTES_MAX, NODES_MAX, NodeCost, SELECTIONS_MAX, costs::Noted,
};
use crate::plan::{CallFunction, Leaf, LeafFunction, Node, Op, Plan};

/// Takes the plan of the query `text` apart. `sets` are those of its selections that were made.
pub(crate) fn tell(plan: &Plan, text: &str, sets: &[Arc<dyn SeriesSet>], costs: Option<&Costs>) -> Explain {
    let mut selections: Vec<ExplainSelection> = plan
        .selections
        .iter()
        .take(SELECTIONS_MAX)
        .enumerate()
        .map(|(index, selection)| {
            let set = sets.get(index);
            ExplainSelection {
                matchers: matchers_text(selection.matchers.iter()),
                start: selection.range.min,
                end: selection.range.max,
                series: set.map(|set| set.len() as u64),
                storage: set.map(|set| set.read_stats()).unwrap_or_default(),
            }
        })
        .collect();
    let mut teller = Teller { plan, text, costs, of_plan: selections.len(), left: NODES_MAX };
    let root = teller.node(&plan.root, 1);
    if let Some(costs) = costs {
        selections.extend(costs.selections());
        selections.truncate(SELECTIONS_MAX);
    }
    let mode = if costs.is_some() { ExplainMode::Analyze } else { ExplainMode::Plan };
    Explain { mode, root, selections }
}

/// `{a="b", c=~"d"}`, as far as there is room.
pub(super) fn matchers_text(matchers: impl Iterator<Item = impl fmt::Display>) -> String {
    let mut text = String::from("{");
    for (index, matcher) in matchers.enumerate() {
        if text.len() > MATCHERS_BYTES_MAX {
            break;
        }
        let separator = if index == 0 { "" } else { ", " };
        text = format!("{text}{separator}{matcher}");
    }
    text.push('}');
    shortened(&text, MATCHERS_BYTES_MAX)
}

/// `text`, at most `bytes` of it.
fn shortened(text: &str, bytes: usize) -> String {
    const DOTS: &str = "...";
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = (0..=bytes - DOTS.len()).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}{DOTS}", &text[..end])
}

/// The operators of `plan` that are told.
pub(super) fn told(plan: &Plan) -> Vec<&Node> {
    fn add<'p>(node: &'p Node, depth: usize, all: &mut Vec<&'p Node>) {
        all.push(node);
        for child in children(&node.op) {
            if all.len() < NODES_MAX && depth < DEPTH_MAX {
                add(child, depth + 1, all);
            }
        }
    }
    let mut all = Vec::new();
    add(&plan.root, 1, &mut all);
    all
}

struct Teller<'a> {
    plan: &'a Plan,
    text: &'a str,
    costs: Option<&'a Costs>,
    /// How many selections of the plan are told.
    of_plan: usize,
    /// How many operators may yet be told.
    left: usize,
}

impl Teller<'_> {
    fn node(&mut self, node: &Node, depth: usize) -> ExplainNode {
        self.left = self.left.saturating_sub(1);
        let mut told = ExplainNode {
            operator: operator(&node.op),
            expr: shortened(
                self.text.get(node.span.start..node.span.end).unwrap_or_default(),
                EXPR_BYTES_MAX,
            ),
            start: node.grid.start,
            step: if node.grid.count > 1 { node.grid.step } else { 0 },
            steps: node.grid.count as u64,
            uses: 1,
            ..ExplainNode::default()
        };
        match &node.op {
            Op::Leaf(leaf) | Op::RawMatrix(leaf) => {
                told.selection = Some(leaf.selection).filter(|index| *index < self.of_plan);
                told.uses = self.plan.leaf_uses.get(leaf.id).copied().unwrap_or(1).max(1);
            }
            Op::Info(_) => {
                let made = self.costs.and_then(|costs| costs.selection_of(node));
                told.selection =
                    made.map(|index| self.of_plan + index).filter(|index| *index < SELECTIONS_MAX);
            }
            _ => {}
        }
        for child in children(&node.op) {
            // The same that `told` chooses.
            if self.left == 0 || depth == DEPTH_MAX {
                told.omitted += count(child);
            } else {
                told.children.push(self.node(child, depth + 1));
            }
        }
        let below = told.children.iter().filter_map(|child| child.cost).map(|cost| cost.time).sum();
        told.cost = self.costs.and_then(|costs| costs.of(node)).map(|noted| noted.cost(below));
        told
    }
}

impl Noted {
    /// What is told of an operator whose inputs took the time `below`.
    fn cost(&self, below: Duration) -> NodeCost {
        if self.whole.evaluations > 0 {
            return NodeCost { own_time: self.whole.time.saturating_sub(below), ..self.whole };
        }
        NodeCost { own_time: self.streamed.time, time: self.streamed.time + below, ..self.streamed }
    }
}

/// How many operators `node` is made of.
fn count(node: &Node) -> usize {
    1 + children(&node.op).into_iter().map(count).sum::<usize>()
}

const fn operator(op: &Op) -> &'static str {
    match op {
        Op::Number(_) => "number",
        Op::String(_) => "string",
        Op::Time => "time",
        Op::Leaf(Leaf { function, .. }) => match function {
            LeafFunction::Latest(_) | LeafFunction::Smoothed(_) => "selector",
            LeafFunction::LatestTimestamp(_) => "selector_timestamp",
            LeafFunction::LatestStart(_) => "selector_start_timestamp",
            LeafFunction::Range(..) => "range_function",
        },
        Op::RawMatrix(_) => "range_selector",
        Op::RawSubquery(_) => "subquery",
        Op::OverSubquery(_) => "range_function_over_subquery",
        Op::Repeat(_) => "step_invariant",
        Op::Negate(_) => "negation",
        Op::Instant(..) => "function",
        Op::OfHistograms(..) => "histogram_function",
        Op::Call(CallFunction::NoStart, _) => "start_timestamp",
        Op::Call(..) => "vector_function",
        Op::Absent { .. } => "absent",
        Op::Info(_) => "info",
        Op::Aggregate(_) => "aggregation",
        Op::BinaryScalars(..) => "binary_of_scalars",
        Op::BinaryScalar(_) => "binary_with_scalar",
        Op::BinaryVectors(_) => "binary_of_vectors",
    }
}

fn children(op: &Op) -> Vec<&Node> {
    match op {
        Op::Number(_) | Op::String(_) | Op::Time => Vec::new(),
        Op::Leaf(leaf) | Op::RawMatrix(leaf) => leaf.params.iter().collect(),
        Op::RawSubquery(inner)
        | Op::Repeat(inner)
        | Op::Negate(inner)
        | Op::OfHistograms(_, inner)
        | Op::Absent { inner, .. } => vec![inner],
        Op::OverSubquery(over) => std::iter::once(&over.inner).chain(&over.params).collect(),
        Op::Instant(_, inner, params) => std::iter::once(&**inner).chain(params).collect(),
        Op::Call(_, args) => args.iter().collect(),
        Op::Info(info) => vec![&info.base],
        Op::Aggregate(aggregate) => std::iter::once(&aggregate.input).chain(&aggregate.param).collect(),
        Op::BinaryScalars(_, lhs, rhs) => vec![lhs, rhs],
        Op::BinaryScalar(binary) => vec![&binary.vector, &binary.scalar],
        Op::BinaryVectors(binary) => vec![&binary.lhs, &binary.rhs],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(shortened("abcdef", 6), "abcdef");
        assert_eq!(shortened("abcdefg", 6), "abc...");
        assert_eq!(shortened("ab\u{20ac}defg", 7), "ab...");
        let long = matchers_text((0..1_000_000).map(|n| format!("a{n}=\"b\"")));
        assert!(long.starts_with("{a0=\"b\", a1=\"b\", ") && long.ends_with("..."), "{long}");
        assert_eq!(long.len(), MATCHERS_BYTES_MAX);
        assert_eq!(matchers_text(["a=\"b\"", "c!=\"d\""].iter()), "{a=\"b\", c!=\"d\"}");
    }

    #[test]
    fn time_below_is_not_the_operators_own() {
        let ms = Duration::from_millis;
        let whole = NodeCost { evaluations: 1, time: ms(10), ..NodeCost::default() };
        let streamed = NodeCost { evaluations: 1, time: ms(3), ..NodeCost::default() };
        let cost = Noted { whole, streamed }.cost(ms(4));
        assert_eq!((cost.time, cost.own_time), (ms(10), ms(6)));
        let cost = Noted { whole: NodeCost::default(), streamed }.cost(ms(4));
        assert_eq!((cost.time, cost.own_time), (ms(7), ms(3)));
    }
}
