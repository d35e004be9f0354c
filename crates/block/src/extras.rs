//! Pages of what stands beside the samples: exemplars and metric metadata.

use chronolith_codec::{Reader, write};
use chronolith_model::{Exemplar, Labels, MetricMetadata, MetricType};

use crate::error::ContentError;
use crate::layout::footer::impossible;
use crate::meta::SERIES_MAX;

/// A page ends with the item that brings it to so many bytes.
pub(crate) const EXTRA_PAGE_BYTES: usize = 64 << 10;

/// The longest label name or value of an exemplar, metric name, unit and help text, in bytes.
pub const EXTRA_TEXT_BYTES_MAX: usize = 64 << 10;

/// The most labels of an exemplar.
pub const EXEMPLAR_LABELS_MAX: usize = 128;

/// The exemplars of one series in one page.
pub(crate) type SeriesExemplars = (u32, Vec<Exemplar>);

/// Appends one series' exemplars to the content of a page; `previous` is the id before it in the page.
pub(crate) fn encode_exemplars(id: u32, previous: Option<u32>, exemplars: &[Exemplar], out: &mut Vec<u8>) {
    write::uvarint(out, u64::from(id - previous.map_or(0, |id| id + 1)));
    write::uvarint(out, exemplars.len() as u64);
    let mut last = 0_i64;
    for exemplar in exemplars {
        write::varint(out, exemplar.timestamp.wrapping_sub(last));
        last = exemplar.timestamp;
        write::u64_le(out, exemplar.value.to_bits());
        write::uvarint(out, exemplar.labels.len() as u64);
        for (name, value) in &exemplar.labels {
            write::prefixed(out, name.as_bytes());
            write::prefixed(out, value.as_bytes());
        }
    }
}

/// Reads the content of a page of exemplars.
pub(crate) fn decode_exemplars(content: &[u8]) -> Result<Vec<SeriesExemplars>, ContentError> {
    let mut reader = Reader::new(content);
    let mut series = Vec::new();
    let mut next = 0_u64;
    while !reader.is_empty() {
        let id = next + reader.count(SERIES_MAX as usize, "gap of ids")? as u64;
        if id >= u64::from(SERIES_MAX) {
            return Err(impossible("series id", SERIES_MAX.into(), id));
        }
        next = id + 1;
        let count = reader.count(reader.rest().len(), "number of exemplars")?;
        let mut exemplars = Vec::new();
        let mut timestamp = 0_i64;
        for _ in 0..count {
            timestamp = timestamp.wrapping_add(reader.varint("timestamp")?);
            let value = f64::from_bits(reader.u64_le("value")?);
            let labels = reader.count(EXEMPLAR_LABELS_MAX, "number of labels")?;
            let mut pairs = Vec::new();
            for _ in 0..labels {
                let name = reader.text(EXTRA_TEXT_BYTES_MAX, "label name")?;
                pairs.push((name, reader.text(EXTRA_TEXT_BYTES_MAX, "label value")?));
            }
            let count = pairs.len() as u64;
            let labels = Labels::from_sorted(pairs).filter(|labels| labels.len() as u64 == count);
            let labels = labels.ok_or_else(|| impossible("order of labels", count, 0))?;
            exemplars.push(Exemplar { labels, value, timestamp });
        }
        series.push((id as u32, exemplars));
    }
    Ok(series)
}

const KINDS: [MetricType; 8] = [
    MetricType::Unknown,
    MetricType::Counter,
    MetricType::Gauge,
    MetricType::Histogram,
    MetricType::GaugeHistogram,
    MetricType::Summary,
    MetricType::Info,
    MetricType::StateSet,
];

/// Appends the metadata of one metric to the content of a page.
pub(crate) fn encode_metadata(metadata: &MetricMetadata, out: &mut Vec<u8>) {
    write::prefixed(out, metadata.metric.as_bytes());
    let kind = KINDS.iter().position(|kind| *kind == metadata.kind).unwrap_or(0);
    out.push(kind as u8);
    write::prefixed(out, metadata.unit.as_bytes());
    write::prefixed(out, metadata.help.as_bytes());
}

/// Reads the content of a page of metadata.
pub(crate) fn decode_metadata(content: &[u8]) -> Result<Vec<MetricMetadata>, ContentError> {
    let mut reader = Reader::new(content);
    let mut all = Vec::new();
    while !reader.is_empty() {
        let metric = reader.text(EXTRA_TEXT_BYTES_MAX, "metric name")?.to_owned();
        let kind = reader.u8("metric type")?;
        let known = KINDS.get(usize::from(kind)).copied();
        let kind = known.ok_or_else(|| impossible("metric type", KINDS.len() as u64 - 1, kind.into()))?;
        let unit = reader.text(EXTRA_TEXT_BYTES_MAX, "unit")?.to_owned();
        let help = reader.text(EXTRA_TEXT_BYTES_MAX, "help text")?.to_owned();
        all.push(MetricMetadata { metric, kind, unit, help });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exemplars_come_back() {
        let exemplar = |t, bits| Exemplar {
            labels: Labels::from_pairs([("trace_id", "abc"), ("b", "2")]),
            value: f64::from_bits(bits),
            timestamp: t,
        };
        let first = vec![exemplar(i64::MAX, 0x7ff8_0000_0000_1234), exemplar(i64::MIN, 0)];
        let second = vec![Exemplar { labels: Labels::empty(), value: -0.0, timestamp: 5 }];
        let mut content = Vec::new();
        encode_exemplars(3, None, &first, &mut content);
        encode_exemplars(9, Some(3), &second, &mut content);
        let read = decode_exemplars(&content).unwrap();
        let same = |a: &[Exemplar], b: &[Exemplar]| a.iter().zip(b).all(|(a, b)| a.same(b));
        assert_eq!(read.iter().map(|(id, all)| (*id, all.len())).collect::<Vec<_>>(), [(3, 2), (9, 1)]);
        assert!(same(&read[0].1, &first) && same(&read[1].1, &second));
        for cut in 0..content.len() {
            // A cut between two series is the content of a shorter page.
            assert!(decode_exemplars(&content[..cut]).map_or(true, |read| read.len() < 2), "{cut}");
        }
    }

    #[test]
    fn metadata_comes_back() {
        let mut content = Vec::new();
        let all: Vec<_> = KINDS
            .iter()
            .map(|kind| MetricMetadata {
                metric: format!("m_{}", kind.as_str()),
                kind: *kind,
                unit: "seconds".to_owned(),
                help: "Says nothing.".to_owned(),
            })
            .collect();
        all.iter().for_each(|one| encode_metadata(one, &mut content));
        assert_eq!(decode_metadata(&content).unwrap(), all);
        assert!(decode_metadata(&[1, b'm', 8, 0, 0]).is_err(), "no such type");
    }
}
