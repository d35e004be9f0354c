//! Log lines: logfmt as Prometheus writes it, or JSON.

use std::fmt::{self, Write as _};

use anyhow::Context as _;
use tracing::{Event, Subscriber, field};
use tracing_subscriber::{
    EnvFilter,
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::cli::LogFormat;

/// Starts logging to standard error.
///
/// # Errors
/// When `level` is no filter.
pub(crate) fn start(level: &str, format: LogFormat) -> anyhow::Result<()> {
    let filter = filter(level)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Logfmt => builder.event_format(Logfmt).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
    Ok(())
}

/// A level, or a filter such as `info,chronolith_wal=debug`. A word alone that is no level would be taken for the name
/// of a module, and silence everything.
fn filter(level: &str) -> anyhow::Result<EnvFilter> {
    let needed = || {
        format!(
            "--log-level: {level:?} is none of error, warn, info, debug, trace, nor a filter such as \
             info,chronolith_wal=debug"
        )
    };
    if !level.contains(['=', ',']) {
        level.parse::<tracing::Level>().ok().with_context(needed)?;
    }
    EnvFilter::try_new(level).ok().with_context(needed)
}

/// `time=... level=INFO msg="..." key=value`
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        out.write_str("time=")?;
        tracing_subscriber::fmt::time::FormatTime::format_time(
            &tracing_subscriber::fmt::time::SystemTime,
            &mut out,
        )?;
        write!(out, " level={} target={}", event.metadata().level(), event.metadata().target())?;
        let mut fields = Fields { message: String::new(), rest: String::new() };
        event.record(&mut fields);
        out.write_str(" msg=")?;
        write_value(&mut out, &fields.message)?;
        writeln!(out, "{}", fields.rest)
    }
}

struct Fields {
    message: String,
    rest: String,
}

impl field::Visit for Fields {
    fn record_debug(&mut self, field: &field::Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_error(&mut self, field: &field::Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut source = value.source();
        while let Some(cause) = source {
            let _ = write!(text, ": {cause}");
            source = cause.source();
        }
        self.record_str(field, &text);
    }

    fn record_str(&mut self, field: &field::Field, value: &str) {
        if field.name() == "message" {
            self.message.push_str(value);
        } else {
            let _ = write!(self.rest, " {}=", field.name());
            let _ = write_value(&mut self.rest, value);
        }
    }
}

fn write_value(out: &mut impl fmt::Write, value: &str) -> fmt::Result {
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(plain) {
        out.write_str(value)
    } else {
        chronolith_model::labels::write_quoted(out, value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_refused() {
        for level in ["info", "WARN", "info,chronolith_wal=debug", "chronolith=trace"] {
            assert!(filter(level).is_ok(), "{level}");
        }
        for level in ["bogus", "", "verbose", "info,x=y"] {
            assert!(filter(level).is_err_and(|error| error.to_string().contains("is none of")), "{level}");
        }
    }
}
