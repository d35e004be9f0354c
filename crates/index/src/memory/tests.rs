use super::*;

fn labels(text: &str) -> Labels {
    Labels::from_pairs(text.split(',').filter_map(|pair| pair.split_once('=')))
}

#[test]
fn pairs_go_with_their_last_series_and_their_numbers_are_reused() {
    let mut index = MemoryIndex::default();
    let empty = index.bytes();
    for round in 0..3 {
        for id in 0..500 {
            index.insert(id, &labels(&format!("__name__=m,i={id},half={},r={round}", id % 2)));
        }
        assert_eq!(index.pairs_count(), 1 + 500 + 2 + 1);
        assert_eq!(index.labels(7), Some(labels(&format!("__name__=m,half=1,i=7,r={round}"))));
        assert!(index.has_labels(7, &labels(&format!("__name__=m,half=1,i=7,r={round}"))));
        assert!(!index.has_labels(7, &labels("__name__=m,half=1,i=7")));
        let half =
            index.pair_counts().find(|count| (count.name, count.value) == ("half", "1")).expect("counted");
        assert_eq!(half.count, 250);
        for id in 0..500 {
            index.remove(id);
        }
        assert!(index.is_empty() && index.names().is_empty() && index.pairs_count() == 0);
    }
    assert_eq!(index.pairs.len(), 504);
    assert_eq!(index.heap_bytes, 0);
    assert!(index.bytes() >= empty);
}

#[test]
fn values_come_page_by_page() {
    let mut index = MemoryIndex::default();
    for id in 0..100 {
        index.insert(id, &labels(&format!("v={:02},w=x{}", id / 4, id % 3)));
    }
    for (values_max, ids_max, pages) in [(1, 100, 25), (7, 100, 4), (100, 9, 9), (100, 100, 1), (0, 0, 25)] {
        let (mut seen, mut ids, mut count) = (Vec::new(), RoaringBitmap::new(), 0);
        let mut after: Option<Arc<str>> = None;
        loop {
            count += 1;
            let page = ValuePage { after: after.as_deref(), values_max, ids_max };
            after = index.visit_values("v", "", &page, &mut |value, postings| {
                seen.push(value.to_owned());
                postings.union_into(&mut ids);
            });
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen, index.values("v").collect::<Vec<_>>());
        assert_eq!((ids.len(), count), (100, pages), "{values_max} {ids_max}");
    }
    let page = ValuePage { after: Some("11"), values_max: 100, ids_max: 100 };
    let mut seen = Vec::new();
    assert!(index.visit_values("v", "1", &page, &mut |value, _| seen.push(value.to_owned())).is_none());
    assert_eq!(seen, ["12", "13", "14", "15", "16", "17", "18", "19"]);
}

#[test]
fn questions_about_labels() {
    let mut index = MemoryIndex::default();
    for (id, text) in ["a=1,b=x", "a=1,b=y,c=z", "a=2,b=x", "d=q"].into_iter().enumerate() {
        index.insert(u32::try_from(id).expect("small"), &labels(text));
    }
    let ids = |ids: &[u32]| ids.iter().copied().collect::<RoaringBitmap>();
    assert_eq!(index.names_among(&ids(&[0, 2])), ["a", "b"]);
    assert_eq!(index.names_among(&ids(&[0, 1, 2, 3])), ["a", "b", "c", "d"]);
    assert_eq!(index.values_among("b", &ids(&[0, 2, 3])), ["x"]);
    assert_eq!(index.values_among("b", &ids(&[1])), ["y"]);
    assert_eq!(index.values_among("nope", &ids(&[1])), Vec::<&str>::new());
    assert_eq!(index.values("a").collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(index.sorted_by_labels(&ids(&[0, 1, 2, 3])), [0, 1, 2, 3]);
    index.remove(1);
    index.insert(9, &labels("a=1"));
    assert_eq!(index.sorted_by_labels(&ids(&[0, 2, 3, 9])), [9, 0, 2, 3]);
}
