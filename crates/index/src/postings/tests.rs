use chronolith_model::Labels;
use proptest::prelude::*;

use super::*;
use crate::{
    memory::MemoryIndex,
    strategies::{any_labels, any_matcher},
};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn resolution_equals_a_filter_over_all_series(
        series in prop::collection::vec(any_labels(), 0..150),
        removed in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
        matchers in prop::collection::vec(any_matcher(), 0..4),
    ) {
        let mut index = MemoryIndex::default();
        let mut expected: std::collections::BTreeMap<u32, &Labels> = std::collections::BTreeMap::new();
        for (id, labels) in series.iter().enumerate() {
            let id = u32::try_from(id * 3).expect("few series");
            index.insert(id, labels);
            expected.insert(id, labels);
        }
        for at in removed.iter().filter(|_| !series.is_empty()) {
            let id = u32::try_from(at.index(series.len()) * 3).expect("few series");
            index.remove(id);
            expected.remove(&id);
        }
        let compiled = CompiledMatcher::compile_all(&matchers).expect("valid");
        let Ok(found) = resolve(&index, &compiled);
        let wanted: Vec<u32> = expected
            .iter()
            .filter(|(_, labels)| compiled.iter().all(|m| m.matches(labels.get(m.name()).unwrap_or_default())))
            .map(|(id, _)| *id)
            .collect();
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), wanted);
        for (id, labels) in &expected {
            prop_assert_eq!(index.labels(*id), Some((*labels).clone()));
        }
        let mut sorted: Vec<(&Labels, u32)> = expected.iter().map(|(id, labels)| (*labels, *id)).collect();
        sorted.sort();
        let order = index.sorted_by_labels(&expected.keys().copied().collect());
        prop_assert_eq!(
            order.iter().map(|id| expected[id]).collect::<Vec<_>>(),
            sorted.iter().map(|(labels, _)| *labels).collect::<Vec<_>>()
        );
    }
}
