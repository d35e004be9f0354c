//! The process's own `process_*` metrics, from `/proc`, and what the machine has.

use std::path::Path;

use chronolith_model::MetricType;
use chronolith_remote::exposition::ExpositionWriter;

/// Clock ticks per second of `/proc/self/stat`; 100 on every Linux that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

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
        out.gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", stat.virtual_bytes);
        out.gauge("process_threads", "Number of threads of the process.", stat.threads);
    }
    if let Some(bytes) = resident_bytes() {
        out.gauge("process_resident_memory_bytes", "Resident memory size in bytes.", bytes);
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

/// Bytes of memory this process may use: those of the machine, or of the smallest control group it is in.
pub(crate) fn available_memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| memory_total(&text));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = group_limit_files(&groups).into_iter().filter_map(|file| read(&file)?.trim().parse().ok());
    limits.chain(machine).min()
}

/// Bytes of the disk that `dir` is on, or will be on when it is made, free or not.
pub(crate) fn disk_bytes(dir: &Path) -> Option<u64> {
    let dir = std::path::absolute(dir).ok()?;
    let stat = dir.ancestors().find_map(|dir| rustix::fs::statvfs(dir).ok())?;
    Some(stat.f_blocks.saturating_mul(stat.f_frsize))
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files with the memory limits of the control groups in `/proc/self/cgroup`, of either version, up to the root; a
/// group without a limit has `max` or a number beyond all memory in it.
fn group_limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            list if list.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            let Some((parent, _)) = path.rsplit_once('/') else { break };
            path = parent;
        }
    }
    files
}

struct Stat {
    cpu_seconds: f64,
    threads: f64,
    virtual_bytes: f64,
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
    })
}

/// From where it is given in KiB: `/proc/self/stat` counts pages, whose size differs between machines.
fn resident_bytes() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    Some(line.trim().strip_suffix("kB")?.trim_end().parse::<f64>().ok()? * 1024.0)
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
    fn control_groups_are_looked_at_up_to_the_root() {
        assert_eq!(
            group_limit_files("0::/a/b\n"),
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"]
        );
        assert_eq!(group_limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let first = "12:cpu,cpuacct:/x\n9:memory:/docker/1\n";
        assert_eq!(group_limit_files(first)[0], "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes");
        assert_eq!(memory_total("MemTotal:       24681420 kB\nMemFree: 1 kB\n"), Some(24_681_420 * 1024));
        assert_eq!(memory_total("MemFree: 1 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_numbers_are_those_of_a_process() {
        let stat = read_stat().expect("a Linux /proc");
        assert!(stat.threads >= 1.0 && stat.threads < 10_000.0);
        assert!(resident_bytes().is_some_and(|bytes| bytes > 100_000.0 && bytes < stat.virtual_bytes));
        assert!(available_memory().is_some_and(|bytes| bytes > 1 << 20));
        assert!(open_files_limit().is_some_and(|limit| limit >= 64.0));
    }
}
