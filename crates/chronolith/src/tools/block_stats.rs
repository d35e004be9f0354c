//! What blocks consist of, added up.

use std::collections::BTreeMap;

use chronolith_block::{Mode, Section as BlockSection, Summary, Transform};
use serde::Serialize;

use super::format::{Table, bytes, per_sample};

/// Units and bytes by section.
pub(super) type Sections = BTreeMap<BlockSection, (u64, u64)>;

/// Slots, samples and bytes by mode, transform and whether another slot is referred to.
pub(super) type Encodings = BTreeMap<(Mode, Transform, bool), [u64; 3]>;

/// A section.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Section {
    section: String,
    /// Pieces that are read by themselves.
    units: u64,
    bytes: u64,
    bytes_per_sample: Option<f64>,
}

/// How often an encoding of floats was chosen.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Encoding {
    /// How numbers become integers.
    mode: &'static str,
    /// How integers become fewer bits.
    transform: &'static str,
    /// As the difference to another series, or as a copy of it.
    reference: bool,
    slots: u64,
    samples: u64,
    /// Before zstd.
    bytes: u64,
}

impl Section {
    pub(super) fn add_all(sections: &mut Sections, summary: &Summary) {
        for section in &summary.sections {
            let (units, bytes) = sections.entry(section.section).or_default();
            *units += section.units;
            *bytes += section.bytes;
        }
    }

    pub(super) fn list(sections: Sections, samples: u64) -> Vec<Self> {
        let named = |(section, (units, bytes)): (BlockSection, (u64, u64))| Self {
            section: section.to_string().replace(' ', "_"),
            units,
            bytes,
            bytes_per_sample: (samples > 0).then(|| bytes as f64 / samples as f64),
        };
        sections.into_iter().map(named).collect()
    }
}

impl Encoding {
    pub(super) fn add_all(encodings: &mut Encodings, summary: &Summary) {
        for count in &summary.encodings {
            let sums = encodings.entry((count.mode, count.transform, count.reference)).or_default();
            for (sum, more) in sums.iter_mut().zip([count.slots, count.samples, count.bytes]) {
                *sum += more;
            }
        }
    }

    /// Most bytes first.
    pub(super) fn list(encodings: Encodings) -> Vec<Self> {
        let named = |((mode, transform, reference), [slots, samples, bytes]): (_, [u64; 3])| Self {
            mode: mode_name(mode),
            transform: transform_name(transform),
            reference,
            slots,
            samples,
            bytes,
        };
        let mut list: Vec<Self> = encodings.into_iter().map(named).collect();
        list.sort_by_key(|encoding| std::cmp::Reverse((encoding.bytes, encoding.samples)));
        list
    }
}

const fn mode_name(mode: Mode) -> &'static str {
    match mode {
        Mode::Int => "integer",
        Mode::Decimal => "decimal",
        Mode::Multiple => "multiple",
        Mode::Ulp => "decimal_and_ulp",
        Mode::Bits => "bits",
        Mode::Copy => "copy",
        _ => "other",
    }
}

const fn transform_name(transform: Transform) -> &'static str {
    match transform {
        Transform::Constant => "constant",
        Transform::ConstantDelta => "constant_delta",
        Transform::Runs => "runs",
        Transform::FrameOfReference => "frame_of_reference",
        Transform::Delta => "delta",
        Transform::DeltaBase => "delta_base",
        Transform::Delta2 => "delta_of_delta",
        Transform::Line => "line",
        _ => "other",
    }
}

pub(super) fn sections_text(sections: &[Section], samples: u64) -> String {
    let mut table = Table::new(&["section", "units", "bytes", "bytes/sample"]);
    for section in sections {
        table.row([
            section.section.replace('_', " "),
            section.units.to_string(),
            bytes(section.bytes),
            per_sample(section.bytes as f64, samples),
        ]);
    }
    table.text()
}

pub(super) fn encodings_text(encodings: &[Encoding]) -> String {
    let mut table = Table::new(&["encoding", "slots", "samples", "bytes before zstd", "bytes/sample"]);
    for encoding in encodings {
        let against = if encoding.reference { ", against another series" } else { "" };
        let name = format!("{}, {}{against}", encoding.mode, encoding.transform).replace('_', " ");
        table.row([
            name,
            encoding.slots.to_string(),
            encoding.samples.to_string(),
            bytes(encoding.bytes),
            per_sample(encoding.bytes as f64, encoding.samples),
        ]);
    }
    table.text()
}
