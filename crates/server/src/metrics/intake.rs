//! Counters of the protocols beside remote write.

use chronolith_remote::exposition::ExpositionWriter;

use super::Counter;

/// What came in by one protocol.
#[derive(Debug, Default)]
pub struct IntakeMetrics {
    /// Bytes of bodies as they were sent.
    pub bytes: Counter,
    /// Samples stored.
    pub stored: Counter,
    /// Samples that were there already.
    pub duplicate: Counter,
    /// Samples refused by storage, which counts them by reason, or for their labels.
    pub rejected: Counter,
    /// Data points or lines that were refused before they became samples.
    pub unreadable: Counter,
    /// Exemplars that were not stored.
    pub exemplars_ignored: Counter,
}

impl IntakeMetrics {
    /// Writes them as `chronolith_<name>_*`; `what` names the protocol in their help.
    pub(super) fn write(&self, name: &str, what: &str, out: &mut ExpositionWriter<'_>) {
        for (suffix, help, counter) in [
            ("bytes", "Bytes of bodies, as sent, of", &self.bytes),
            ("samples", "Samples stored of", &self.stored),
            (
                "samples_duplicate",
                "Samples that were there already, with the same value, of",
                &self.duplicate,
            ),
            ("samples_rejected", "Samples refused of", &self.rejected),
            ("unreadable", "Data points or lines that could not become samples, of", &self.unreadable),
            ("exemplars_ignored", "Exemplars that were not stored, of", &self.exemplars_ignored),
        ] {
            out.counter(
                &format!("chronolith_{name}_{suffix}_total"),
                &format!("{help} {what}."),
                counter.get(),
            );
        }
    }
}
