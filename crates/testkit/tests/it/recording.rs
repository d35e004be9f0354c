//! The recorded series can be read to the end, bounded in memory.

use chronolith_testkit::{
    data::{RECORDING_FILE, Recording, Replay, data_dir},
    paths::skip,
};

#[test]
fn the_recording_is_readable() {
    let Some(dir) = data_dir() else {
        return skip("the recording (CHRONOLITH_DATA)");
    };
    let replay = Replay { instances: 2, spread: 15, shift: 60_000 };
    let recording = Recording::open(&dir.join(RECORDING_FILE), replay).expect("the recording opens");
    let mut samples = 0;
    // A part of it: the whole has 17 million samples.
    for series in recording.take(400) {
        let series = series.expect("a valid line");
        assert!(series.labels.metric_name().is_some());
        assert!(
            series.samples.windows(2).all(|pair| pair[0].timestamp < pair[1].timestamp),
            "{}",
            series.labels
        );
        samples += series.samples.len();
    }
    assert!(samples > 400 * 100, "{samples} samples in 400 series");
}
