//! Damage is found where it is, and nothing panics.

use std::collections::BTreeSet;
use std::path::Path;

use chronolith_block::{Block, BlockCache, BlockRange, Error, Section, SeriesSamples, inspect, verify};
use chronolith_model::TimeRange;
use chronolith_testkit::fake_env::SimRng;

use crate::fixture::Disk;
use crate::format::sample_block;
use crate::roundtrip::content;

/// Reads all there is, as far as that goes.
fn read_all(disk: &Disk, path: &Path) -> Result<(), Error> {
    let block = Block::open(&disk.fs, path, &BlockCache::new(0))?;
    let ids = block.select(&[])?;
    block.labels(&ids)?;
    let mut reader = block.reader();
    for id in 0..block.meta().series {
        reader.read(id, TimeRange::ALL, &mut SeriesSamples::default())?;
        reader.fragments(id, TimeRange::ALL)?;
    }
    block.exemplars(&ids, TimeRange::ALL)?;
    block.metadata()?;
    inspect(&block).map(drop)
}

/// Whether an error says where the damage is.
fn is_placed(error: &Error, path: &Path) -> bool {
    let text = error.to_string();
    error.is_damage() && text.contains(path.to_str().unwrap())
        || matches!(error, Error::ForeignVersion { .. })
}

#[test]
fn every_flipped_byte_is_found() {
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let whole = disk.disk.read(&path).unwrap();
    read_all(&disk, &path).unwrap();
    let mut sections = BTreeSet::new();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        disk.disk.put(&path, bytes);
        let read = read_all(&disk, &path);
        if let Err(error) = &read {
            assert!(is_placed(error, &path), "byte {at}: {error}");
            sections.extend(error.place().map(|(section, _)| section));
        }
        // Reading may not touch the byte; verification does.
        match Block::open(&disk.fs, &path, &BlockCache::new(0)) {
            Err(error) => assert!(is_placed(&error, &path), "byte {at}: {error}"),
            Ok(block) => {
                let report = verify(&block, &|| false).unwrap();
                assert!(!report.problems.is_empty(), "byte {at} of {}: nothing found", whole.len());
                assert!(report.problems.iter().all(|error| is_placed(error, &path)), "byte {at}");
            }
        }
    }
    for section in [Section::Timestamps, Section::Exemplars, Section::Starts, Section::Metadata] {
        assert!(sections.contains(&section), "{section} is read");
    }
}

#[test]
fn start_timestamps_behind_right_checksums_may_be_anything() {
    use chronolith_env::Rng as _;
    let disk = Disk::new();
    let (path, model) = sample_block(&disk, 1);
    let whole = disk.disk.read(&path).unwrap();
    let footer = whole.len() - 40;
    let word = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let hotcache = word(footer)..footer;
    // Where the page is, errors tell.
    let is_page = |at: &usize| {
        let mut bytes = whole.clone();
        bytes[*at] ^= 1;
        disk.disk.put(&path, bytes);
        let error = read_all(&disk, &path).err();
        error.and_then(|error| error.place()).is_some_and(|(section, _)| section == Section::Starts)
    };
    let page: Vec<usize> = (8..hotcache.start).filter(is_page).collect();
    let page = page[0]..page[page.len() - 1] + 1;
    let crc = chronolith_codec::crc32(&whole[page.clone()]).to_le_bytes();
    let crc = hotcache.start + whole[hotcache.clone()].windows(4).position(|w| w == crc).unwrap();
    let rng = SimRng::new(9);
    let (mut refused, mut read) = (0, 0);
    for _ in 0..2000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.next_u64() % 3 {
            bytes[page.start + rng.next_u64() as usize % page.len()] = rng.next_u64() as u8;
        }
        let sum = chronolith_codec::crc32(&bytes[page.clone()]);
        bytes[crc..crc + 4].copy_from_slice(&sum.to_le_bytes());
        let sum = chronolith_codec::crc32(&bytes[hotcache.clone()]);
        bytes[footer + 12..footer + 16].copy_from_slice(&sum.to_le_bytes());
        let sum = chronolith_codec::crc32(&bytes[footer..footer + 32]);
        bytes[footer + 32..footer + 36].copy_from_slice(&sum.to_le_bytes());
        disk.disk.put(&path, bytes);
        let block = disk.open(&path);
        let problems = verify(&block, &|| false).unwrap().problems;
        let placed = |error: &Error| error.place() == Some((Section::Starts, page.start as u64));
        assert!(problems.iter().all(placed), "{problems:?}");
        match read_all(&disk, &path) {
            Err(error) => {
                assert!(placed(&error) && !problems.is_empty(), "{error}");
                refused += 1;
            }
            Ok(()) => {
                // Samples are not concerned.
                assert_eq!(crate::fixture::read(&block, TimeRange::ALL), model);
                read += 1;
            }
        }
    }
    assert!(refused > 100 && read > 100, "{refused} {read}");
}

#[test]
fn every_truncation_is_found() {
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let whole = disk.disk.read(&path).unwrap();
    for len in 0..whole.len() {
        disk.disk.put(&path, whole[..len].to_vec());
        let error = Block::open(&disk.fs, &path, &BlockCache::new(0)).unwrap_err();
        assert!(is_placed(&error, &path), "{len}: {error}");
    }
    let mut longer = whole.clone();
    longer.push(0);
    disk.disk.put(&path, longer);
    assert!(Block::open(&disk.fs, &path, &BlockCache::new(0)).unwrap_err().is_damage());
}

#[test]
fn damage_is_named_by_section_and_offset() {
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let whole = disk.disk.read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[10] ^= 1;
    disk.disk.put(&path, bytes);
    let error = read_all(&disk, &path).unwrap_err();
    let Error::Checksum { section, off, expected, got, .. } = &error else { panic!("{error}") };
    assert_eq!((*section, *off), (Section::ValueFrames, 8));
    assert_ne!(expected, got);
    let text = error.to_string();
    assert!(text.contains("value frames at offset 8") && text.contains(&format!("{expected:08x}")), "{text}");
}

#[test]
fn random_damage_behind_right_checksums_never_panics() {
    use chronolith_env::Rng as _;
    // The hotcache is reached with its checksum made right: every field of it may be anything.
    let disk = Disk::new();
    let (path, _) = sample_block(&disk, 1);
    let whole = disk.disk.read(&path).unwrap();
    let footer = whole.len() - 40;
    let word = |at: usize| u64::from_le_bytes(whole[at..at + 8].try_into().unwrap()) as usize;
    let hotcache = word(footer)..footer;
    let rng = SimRng::new(7);
    for _ in 0..3000 {
        let mut bytes = whole.clone();
        for _ in 0..1 + rng.next_u64() % 3 {
            let at = hotcache.start + rng.next_u64() as usize % hotcache.len();
            bytes[at] = rng.next_u64() as u8;
        }
        let crc = chronolith_codec::crc32(&bytes[hotcache.clone()]);
        bytes[footer + 12..footer + 16].copy_from_slice(&crc.to_le_bytes());
        let crc = chronolith_codec::crc32(&bytes[footer..footer + 32]);
        bytes[footer + 32..footer + 36].copy_from_slice(&crc.to_le_bytes());
        disk.disk.put(&path, bytes);
        let _ = read_all(&disk, &path);
        if let Ok(block) = Block::open(&disk.fs, &path, &BlockCache::new(0)) {
            let _ = verify(&block, &|| false);
        }
    }
}

#[test]
fn damage_in_one_part_leaves_the_rest_readable() {
    let disk = Disk::new();
    let model = content(200, 60);
    let path = disk.write(1, BlockRange::new(0, 7_200_000), &[(0, model.clone())]);
    let mut bytes = disk.disk.read(&path).unwrap();
    bytes[20] ^= 1;
    disk.disk.put(&path, bytes);
    let block = disk.open(&path);
    let mut reader = block.reader();
    let (mut good, mut bad) = (0, 0);
    for id in 0..block.meta().series {
        match reader.read(id, TimeRange::ALL, &mut SeriesSamples::default()) {
            Ok(()) => good += 1,
            Err(error) => {
                assert!(error.is_damage());
                bad += 1;
            }
        }
    }
    assert!(good > 0 && bad > 0, "{good} {bad}");
    let report = verify(&block, &|| false).unwrap();
    assert_eq!(report.problems.len(), 1, "{:?}", report.problems);
}
