//! Verification and inspection of sound blocks.

use chronolith_block::{BlockRange, Error, Section, inspect, verify};

use crate::fixture::{Disk, tombstone};
use crate::format::sample_block;
use crate::roundtrip::content;

#[test]
fn a_sound_block_has_no_problem() {
    let disk = Disk::new();
    let block = disk.open(&disk.write(1, BlockRange::new(0, 7_200_000), &[(0, content(50, 100))]));
    let report = verify(&block, &|| false).unwrap();
    assert!(report.problems.is_empty(), "{:?}", report.problems);
    assert_eq!((report.samples, report.histograms), (block.meta().samples, block.meta().histograms));
    assert_eq!(report.bytes, block.file_bytes());
    assert!(report.pairs > 50);
    assert!(matches!(verify(&block, &|| true), Err(Error::Cancelled)));
    let (path, _) = sample_block(&disk, 2);
    assert!(verify(&disk.open(&path), &|| false).unwrap().problems.is_empty());
}

#[test]
fn a_summary_accounts_for_every_byte() {
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let block = disk.open(&path);
    block.delete(tombstone("instance", "i0", 0, 100_000)).unwrap();
    let summary = inspect(&block).unwrap();
    assert_eq!(summary.sections.iter().map(|section| section.bytes).sum::<u64>(), summary.bytes);
    let units = |section| summary.sections.iter().find(|s| s.section == section).map_or(0, |s| s.units);
    assert_eq!(units(Section::ValueFrames), units(Section::Statistics));
    assert!(units(Section::HistogramFrames) > 0 && units(Section::Exemplars) > 0);
    assert_eq!(summary.parts.len(), 2);
    assert_eq!(summary.tombstones, 1);
    let meta = block.meta();
    assert_eq!(summary.metrics.iter().map(|m| m.series).sum::<u64>(), u64::from(meta.series));
    assert_eq!(summary.metrics.iter().map(|m| m.samples).sum::<u64>(), meta.samples + meta.histograms);
    let frames = summary
        .sections
        .iter()
        .filter(|s| matches!(s.section, Section::ValueFrames | Section::HistogramFrames));
    let frames = frames.map(|s| s.bytes).sum::<u64>() as f64;
    let shared = summary.metrics.iter().map(|m| m.bytes).sum::<f64>();
    assert!((shared - frames).abs() < 1e-6 * frames, "{shared} {frames}");
    assert_eq!(summary.encodings.iter().map(|e| e.samples).sum::<u64>(), meta.samples);
}
