//! The process's own `process_*` metrics, from `/proc`.

use chronolith_model::MetricType;
use chronolith_remote::exposition::ExpositionWriter;

/// Clock ticks per second of `/proc/self/stat`; 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;
/// Page size that `/proc/self/stat` counts resident memory in.
const PAGE_BYTES: f64 = 4096.0;

/// Appends what can be read; a value the system does not give is left out.
pub(crate) fn write_metrics(out: &mut ExpositionWriter<'_>, start_time_ms: i64) {
    out.gauge(
        "process_start_time_seconds",
        "Start time of the process since unix epoch in seconds.",
        start_time_ms as f64 / 1000.0,
    );
    if let Some(stat) = read_stat() {
        let name = "process_cpu_seconds_total";
        out.family(name, MetricType::Counter, "Total user and system CPU time spent in seconds.");
        out.sample(name, &[], stat.cpu_seconds);
        out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", stat.resident_bytes);
        out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.virtual_bytes);
        out.gauge("process_threads", "Number of threads of the process.", stat.threads);
    }
    if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
        out.gauge("process_open_fds", "Number of open file descriptors.", entries.count() as f64);
    }
    if let Some(limit) = open_files_limit() {
        out.gauge("process_max_fds", "Maximum number of open file descriptors.", limit);
    }
}

/// Threads of the process, 0 where the system does not say.
pub(crate) fn thread_count() -> u64 {
    read_stat().map_or(0, |stat| stat.threads as u64)
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
    resident_bytes: f64,
}

fn read_stat() -> Option<Stat> {
    let text = std::fs::read_to_string("/proc/self/stat").ok()?;
    // The second field is the command in parentheses and may hold spaces; count from behind it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<f64> = rest.split_whitespace().skip(1).map_while(|field| field.parse().ok()).collect();
    Some(Stat {
        cpu_seconds: (fields.get(10)? + fields.get(11)?) / TICKS_PER_SECOND,
        threads: *fields.get(16)?,
        virtual_bytes: *fields.get(19)?,
        resident_bytes: fields.get(20)? * PAGE_BYTES,
    })
}

fn open_files_limit() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = text.lines().find(|line| line.starts_with("Max open files"))?;
    line.split_whitespace().nth(3)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn the_numbers_are_those_of_a_process() {
        let stat = read_stat().expect("a Linux /proc");
        assert!(stat.threads >= 1.0 && stat.threads < 10_000.0);
        assert!(stat.resident_bytes > 100_000.0 && stat.resident_bytes < stat.virtual_bytes);
        assert!(open_files_limit().is_some_and(|limit| limit >= 64.0));
    }
}
