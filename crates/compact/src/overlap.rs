//! Blocks that overlap in time.

use crate::BlockInfo;

/// Blocks that hang together by overlaps, in the order of time; one alone overlaps no other.
#[derive(Debug)]
pub(crate) struct Component<'a> {
    // Invariant: not empty, by lower end.
    pub(crate) blocks: Vec<&'a BlockInfo>,
}

impl<'a> Component<'a> {
    /// The blocks to merge: all, or of more than `max` those that come first where samples meet.
    ///
    /// Nothing that comes between two of them is left out, since no single number would then be right for the merged
    /// part: what is chosen comes before all that is not. If their numbers are interleaved, that may take more than
    /// `max`.
    pub(crate) fn merge_first(&self, max: usize) -> Vec<&'a BlockInfo> {
        let mut blocks = self.blocks.clone();
        blocks.sort_unstable_by_key(|block| block.precedence());
        let mut highest = 0;
        let mut take = blocks.len();
        for (index, pair) in blocks.windows(2).enumerate() {
            let [block, next] = pair else { break };
            highest = highest.max(block.priorities.highest);
            // Equal numbers stay together: what is merged has a younger id, which would then decide.
            let closed = highest < next.priorities.lowest;
            if index + 1 >= max && closed {
                take = index + 1;
                break;
            }
        }
        blocks.truncate(take);
        blocks
    }
}

/// The components of `blocks`, which are sorted by begin, in the order of time.
pub(crate) fn components<'a>(blocks: &[&'a BlockInfo]) -> Vec<Component<'a>> {
    let mut components: Vec<Component<'a>> = Vec::new();
    let mut end = i64::MIN;
    for &block in blocks {
        match components.last_mut().filter(|_| block.range.min() < end) {
            Some(component) => component.blocks.push(block),
            None => components.push(Component { blocks: vec![block] }),
        }
        end = end.max(block.range.max());
    }
    components
}
