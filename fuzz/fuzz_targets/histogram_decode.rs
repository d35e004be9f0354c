//! Chunks and frames of histograms: whatever the bytes, reading ends, and what was read can be written and read again.
#![no_main]

use chronolith_chunk::histogram::{
    HistogramAppender, HistogramFrame, HistogramFrameBuilder, HistogramIter, decode_histograms_into,
};
use chronolith_model::Histogram;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((mode, data)) = data.split_first() else { return };
    let histograms = if mode & 1 == 0 { chunk(data) } else { frame(data) };
    if histograms.len() <= 256 {
        rewrite(&histograms);
    }
});

fn chunk(bytes: &[u8]) -> Vec<Histogram> {
    let (mut timestamps, mut histograms) = (vec![-1], Vec::new());
    let Ok(samples) = HistogramIter::new(bytes) else { return histograms };
    let one_by_one: Result<Vec<_>, _> = samples.collect();
    let ascending = one_by_one.as_ref().is_ok_and(|all| all.windows(2).all(|two| two[0].0 <= two[1].0));
    match decode_histograms_into(bytes, i64::MIN, i64::MAX, &mut timestamps, &mut histograms) {
        Ok(count) if ascending => assert_eq!(count, one_by_one.map_or(0, |all| all.len())),
        Ok(_) => {}
        Err(_) => assert_eq!((timestamps.len(), histograms.len()), (1, 0)),
    }
    histograms
}

fn frame(bytes: &[u8]) -> Vec<Histogram> {
    let mut histograms = Vec::new();
    let Ok(frame) = HistogramFrame::open(bytes) else { return histograms };
    for slot in 0..frame.slots() {
        let before = histograms.len();
        if frame.decode(slot, 0..usize::MAX, &mut histograms).is_ok() {
            assert_eq!(Some(histograms.len() - before), frame.samples(slot));
        } else {
            assert_eq!(histograms.len(), before);
        }
        if histograms.len() > 1024 {
            break;
        }
    }
    histograms
}

fn rewrite(histograms: &[Histogram]) {
    let mut builder = HistogramFrameBuilder::new();
    if builder.push(histograms, 1, 1).is_ok() {
        let (mut bytes, mut read) = (Vec::new(), Vec::new());
        builder.finish(&mut bytes);
        let frame = HistogramFrame::open(&bytes).expect("a frame of our own");
        frame.decode(0, 0..usize::MAX, &mut read).expect("a slot of our own");
        assert_eq!(read, histograms);
    }
    let mut chunk = Vec::new();
    let mut appender: Option<HistogramAppender> = None;
    for (t, histogram) in (0..).zip(histograms) {
        let appended = appender
            .as_mut()
            .is_some_and(|open| open.append(&mut chunk, t, histogram).expect("there is room"));
        if !appended {
            let previous = appender.take();
            appender = Some(HistogramAppender::start(
                &mut chunk,
                t,
                histogram,
                previous.as_ref().map(|open| open.last()),
            ));
        }
        let last = HistogramIter::new(&chunk).expect("a chunk of our own").last().expect("a sample");
        let (at, read) = last.expect("a sample of our own");
        assert!(at == t && read.same_observations(histogram));
    }
}
