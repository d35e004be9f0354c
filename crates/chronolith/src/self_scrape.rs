//! Stores the server's own metrics in itself, as a Prometheus that scrapes it would.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use chronolith_model::{Labels, METRIC_NAME, Sample, TenantId, Timestamp};
use chronolith_remote::exposition::{ExpositionLimits, parse};
use chronolith_server::AppState;
use chronolith_storage::{Appender, LabelFault, LabelSource, RejectReason, SeriesEntry, WriteBatch};
use tokio::sync::watch;

/// The `instance` label. Not the address: a Prometheus that scrapes this server and writes to it would send the same
/// series, and the two would refuse each other's samples as out of order.
const INSTANCE: &str = "self";
/// Label sets remembered from one scrape to the next; the exposition itself is bounded well below.
const SERIES_MAX: usize = 50_000;

/// Scrapes every `interval` until `stop` says so; `typed`: the types of metrics become labels.
pub(crate) async fn run(
    state: AppState,
    appender: std::sync::Arc<dyn Appender>,
    (interval, typed): (Duration, bool),
    mut stop: watch::Receiver<bool>,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let mut scraper = Scraper { typed, ..Scraper::default() };
    let mut storing = Storing::default();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = stop.wait_for(|stop| *stop) => return,
        }
        let (state, appender) = (state.clone(), std::sync::Arc::clone(&appender));
        let scrape = tokio::task::spawn_blocking(move || {
            let result = scraper.scrape(&state, &*appender);
            (scraper, result)
        });
        match scrape.await {
            Ok((back, result)) => {
                scraper = back;
                storing.tell(result);
            }
            Err(error) => {
                tracing::error!(%error, "self-scrape ended");
                return;
            }
        }
    }
}

/// Whether the last scrape was stored; told when that changes, not every time.
#[derive(Debug, Default, PartialEq, Eq)]
struct Storing {
    failed: u64,
}

impl Storing {
    fn tell(&mut self, result: anyhow::Result<()>) {
        match result {
            Err(error) if self.failed == 0 => {
                self.failed = 1;
                let error = format!("{error:#}");
                tracing::warn!(error, "cannot store the server's own metrics; told again when that changes");
            }
            Err(_) => self.failed += 1,
            Ok(()) if self.failed > 0 => {
                let failed = std::mem::take(&mut self.failed);
                tracing::info!(failed, "the server's own metrics are stored again");
            }
            Ok(()) => {}
        }
    }
}

#[derive(Default)]
struct Scraper {
    /// Series get labels with the type of their metric.
    typed: bool,
    /// Scraped label sets to those stored, with `job` and `instance`.
    known: HashMap<Labels, Labels>,
}

struct Stored(Vec<Labels>);

impl LabelSource for Stored {
    fn labels(&self, series: usize) -> Result<Labels, RejectReason> {
        self.0.get(series).cloned().ok_or_else(|| RejectReason::InvalidLabels {
            fault: LabelFault::Internal,
            text: "no such series".to_owned(),
        })
    }
}

impl Scraper {
    fn scrape(&mut self, state: &AppState, appender: &dyn Appender) -> anyhow::Result<()> {
        let started = Instant::now();
        let timestamp = now_ms();
        let text = state.metrics_text();
        let mut exposition = parse(&text, &ExpositionLimits::default()).context("own metrics")?;
        if self.typed {
            exposition.label_types();
        }
        let scraped = exposition.samples.len() as f64;
        let mut labels = Vec::with_capacity(exposition.samples.len() + 3);
        let mut samples = Vec::with_capacity(exposition.samples.len() + 3);
        for sample in exposition.samples {
            labels.push(self.stored(sample.labels));
            samples.push(Sample::new(timestamp, sample.value));
        }
        let report = [
            ("up", 1.0),
            ("scrape_samples_scraped", scraped),
            ("scrape_duration_seconds", started.elapsed().as_secs_f64()),
        ];
        for (name, value) in report {
            labels.push(self.stored(Labels::from_pairs([(METRIC_NAME, name)])));
            samples.push(Sample::new(timestamp, value));
        }
        let tenant = TenantId::default();
        store(appender, &tenant, labels, &samples)?;
        appender.append_metadata(&tenant, exposition.metadata);
        Ok(())
    }

    fn stored(&mut self, scraped: Labels) -> Labels {
        if self.known.len() > SERIES_MAX {
            self.known.clear();
        }
        let with_target =
            |labels: &Labels| labels.to_builder().set("job", "chronolith").set("instance", INSTANCE).build();
        self.known.entry(scraped).or_insert_with_key(with_target).clone()
    }
}

fn store(
    appender: &dyn Appender,
    tenant: &TenantId,
    labels: Vec<Labels>,
    samples: &[Sample],
) -> anyhow::Result<()> {
    let hasher = appender.key_hasher();
    let entry = |(index, labels): (usize, &Labels)| {
        let index = index as u32;
        SeriesEntry::of_samples(hasher.key(labels.to_string().as_bytes()), index..index + 1)
    };
    let series: Vec<_> = labels.iter().enumerate().map(entry).collect();
    let labels = Stored(labels);
    let batch = WriteBatch::of_samples(&series, samples, &labels);
    let appended = appender.append(tenant, &batch)?;
    appended.ticket.wait()?;
    if let Some(rejection) = appended.outcome.rejections.first() {
        anyhow::bail!("{} samples refused, the first: {}", appended.outcome.rejected, rejection.reason);
    }
    Ok(())
}

fn now_ms() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_counted_until_one_is_stored() {
        let mut storing = Storing::default();
        for failed in 1..=3 {
            storing.tell(Err(anyhow::anyhow!("full")));
            assert_eq!(storing, Storing { failed });
        }
        storing.tell(Ok(()));
        assert_eq!(storing, Storing { failed: 0 });
    }
}
