//! Snapshots and chunk files of any bytes: loading and reading them ends without a panic.
//!
//! The first byte chooses: the rest is a snapshot as it stands, or the content of a section with the right checksums, so
//! that what is behind the checksums is reached, or a chunk file beside a snapshot that refers to it.
#![no_main]

mod memory_fs;

use std::path::Path;
use std::sync::Arc;

use chronolith_env::Env;
use chronolith_head::{Head, HeadOptions, HeadView, SNAPSHOT_VERSION, Snapshots};
use chronolith_model::{TenantId, TimeRange};
use chronolith_storage::Samples;
use libfuzzer_sys::fuzz_target;
use memory_fs::MemoryFs;

const NUMBER: u32 = 1;

fuzz_target!(|data: &[u8]| {
    let Some((mode, rest)) = data.split_first() else { return };
    match mode % 3 {
        0 => check(rest.to_vec(), None),
        1 => {
            let Some((section_type, content)) = rest.split_first() else { return };
            check(snapshot(&[(*section_type % 9, content)]), None);
        }
        _ => {
            let Some((len, rest)) = rest.split_first() else { return };
            let Some((content, file)) = rest.split_at_checked(usize::from(*len)) else { return };
            check(snapshot(&[(1, content)]), Some(file.to_vec()));
        }
    }
});

/// A snapshot with these sections, all of shard 0, and no directory.
fn snapshot(sections: &[(u8, &[u8])]) -> Vec<u8> {
    let mut out = b"CHRNSNAP".to_vec();
    out.extend(SNAPSHOT_VERSION.to_le_bytes());
    out.extend(16_u16.to_le_bytes());
    out.extend(NUMBER.to_le_bytes());
    out.extend([0; 12]);
    out.extend(crc32fast::hash(&out).to_le_bytes());
    for (section_type, content) in sections {
        let len = (content.len() as u32).to_le_bytes();
        let mut header = vec![*section_type, 0, 0, 0];
        header.extend(len);
        header.extend(len);
        header.extend([1, 0, 0, 0]);
        header.extend(crc32fast::hash(content).to_le_bytes());
        let mut bound = SNAPSHOT_VERSION.to_le_bytes().to_vec();
        bound.extend(NUMBER.to_le_bytes());
        bound.extend((out.len() as u64).to_le_bytes());
        bound.extend(&header);
        out.extend(&header);
        out.extend(crc32fast::hash(&bound).to_le_bytes());
        out.extend(*content);
    }
    out
}

fn check(file: Vec<u8>, chunks: Option<Vec<u8>>) {
    let dir = Path::new("/head");
    let fs = MemoryFs::default();
    fs.put(&dir.join(format!("{NUMBER:08}.snapshot")), file);
    if let Some(chunks) = chunks {
        fs.put(&dir.join("chunks").join(format!("{NUMBER:08}.chunks")), chunks);
    }
    let env = Env { fs: Arc::new(fs), ..Env::real() };
    let head = Arc::new(Head::new(HeadOptions::default(), env.clone()));
    let snapshots = Snapshots::open(&env, dir).expect("a directory");
    let Ok(loaded) = snapshots.load(&head) else { return };
    assert_eq!(loaded.series, head.series() as u64);
    assert_eq!(loaded.damage_count == 0, loaded.damage.is_empty());
    let tenant = TenantId::new("anonymous").expect("valid");
    let view = HeadView::open(Arc::clone(&head), &tenant, TimeRange::ALL);
    let selection = view.select(&[]);
    let fetched = view.fetch(&selection.series, TimeRange::ALL);
    for at in 0..selection.series.len() {
        let _ = fetched.read(at, &mut Samples::default());
    }
    // What was taken over can be written again.
    if loaded.damage_count == 0 && loaded.number.is_some() {
        let report = snapshots.write(&head, Vec::new()).expect("a disk with room");
        assert_eq!(report.series, loaded.series);
    }
}
