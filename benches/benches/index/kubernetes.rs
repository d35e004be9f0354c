//! Series as a Kubernetes cluster has them: 230 nodes, 3,501 pods, about 8,600 containers; cAdvisor, kube-state-metrics,
//! node exporter and applications with histograms.

use chronolith_e2e::rng::Rng;
use chronolith_model::{Labels, METRIC_NAME};

const NODES: u64 = 230;
const PODS: usize = 3_501;
const NAMESPACES: u64 = 42;

const WORDS: [&str; 24] = [
    "api", "web", "auth", "billing", "cart", "search", "orders", "payments", "profile", "gateway", "ledger",
    "mail", "media", "metrics", "notify", "pricing", "queue", "reports", "risk", "session", "shipping",
    "stock", "tax", "user",
];
const TIERS: [&str; 7] = ["frontend", "backend", "worker", "cache", "db", "proxy", "cron"];

const CONTAINER_METRICS: [&str; 14] = [
    "container_cpu_usage_seconds_total",
    "container_cpu_cfs_periods_total",
    "container_cpu_cfs_throttled_periods_total",
    "container_cpu_cfs_throttled_seconds_total",
    "container_file_descriptors",
    "container_memory_cache",
    "container_memory_max_usage_bytes",
    "container_memory_rss",
    "container_memory_swap",
    "container_memory_usage_bytes",
    "container_memory_working_set_bytes",
    "container_processes",
    "container_start_time_seconds",
    "container_threads",
];
const NETWORK_METRICS: [&str; 8] = [
    "container_network_receive_bytes_total",
    "container_network_receive_errors_total",
    "container_network_receive_packets_dropped_total",
    "container_network_receive_packets_total",
    "container_network_transmit_bytes_total",
    "container_network_transmit_errors_total",
    "container_network_transmit_packets_dropped_total",
    "container_network_transmit_packets_total",
];

struct Pod {
    namespace: String,
    name: String,
    app: String,
    uid: String,
    ip: String,
    node: u64,
    containers: Vec<Container>,
}

struct Container {
    name: String,
    id: String,
    image: String,
}

fn hex(rng: &mut Rng, digits: usize) -> String {
    let mut text = String::new();
    while text.len() < digits {
        text.push_str(&format!("{:016x}", rng.next_u64()));
    }
    text.truncate(digits);
    text
}

fn pick<'a>(rng: &mut Rng, texts: &[&'a str]) -> &'a str {
    texts[rng.below(texts.len() as u64) as usize]
}

fn uuid(rng: &mut Rng) -> String {
    [8, 4, 4, 4, 12].map(|digits| hex(rng, digits)).join("-")
}

fn suffix(rng: &mut Rng, chars: usize) -> String {
    (0..chars).map(|_| char::from(b"bcdfghjklmnpqrstvwxz2456789"[rng.below(27) as usize])).collect()
}

fn pods(rng: &mut Rng) -> Vec<Pod> {
    let mut pods = Vec::new();
    while pods.len() < PODS {
        let app = format!("{}-{}", pick(rng, &WORDS), pick(rng, &TIERS));
        // A few namespaces are large.
        let namespace = rng.below(NAMESPACES).min(rng.below(NAMESPACES));
        let namespace = format!("team-{}-{namespace}", WORDS[namespace as usize % WORDS.len()]);
        let template = hex(rng, 10);
        let image = format!("registry.example.com/{namespace}/{app}@sha256:{}", hex(rng, 64));
        for _ in 0..1 + rng.below(24).min(rng.below(24)) {
            let mut containers =
                vec![Container { name: "app".into(), id: hex(rng, 64), image: image.clone() }];
            for (sidecar, of) in [("istio-proxy", 2), ("log-shipper", 2), ("vault-agent", 2)] {
                if rng.below(of) == 0 {
                    let image = format!("registry.example.com/infra/{sidecar}:v1.{}.0", rng.below(3));
                    containers.push(Container { name: sidecar.into(), id: hex(rng, 64), image });
                }
            }
            pods.push(Pod {
                namespace: namespace.clone(),
                name: format!("{app}-{template}-{}", suffix(rng, 5)),
                app: app.clone(),
                uid: uuid(rng),
                ip: format!("10.{}.{}.{}", rng.below(16), rng.below(256), rng.below(256)),
                node: rng.below(NODES),
                containers,
            });
        }
    }
    pods.truncate(PODS);
    pods
}

/// Series of one seed in block order.
pub(crate) fn series(seed: u64) -> Vec<Labels> {
    let mut rng = Rng::new(seed);
    let pods = pods(&mut rng);
    let mut all = Vec::new();
    for pod in &pods {
        cadvisor(&mut rng, pod, &mut all);
        kube_state(pod, &mut all);
        application(&mut rng, pod, &mut all);
    }
    for node in 0..NODES {
        node_exporter(node, &mut all);
    }
    all.sort_by_cached_key(|labels| (labels.metric_name().unwrap_or_default().to_owned(), labels.clone()));
    all.dedup();
    all
}

fn push(all: &mut Vec<Labels>, metric: &str, parts: &[&[(&str, &str)]]) {
    let pairs = parts.iter().flat_map(|part| part.iter().copied());
    all.push(Labels::from_pairs(pairs.chain([(METRIC_NAME, metric)])));
}

fn cadvisor(rng: &mut Rng, pod: &Pod, all: &mut Vec<Labels>) {
    let node = format!("ip-10-0-{}-{}.eu-west-1.compute.internal", pod.node / 16, pod.node % 16);
    let instance = format!("10.0.{}.{}:10250", pod.node / 16, pod.node % 16);
    let target: [(&str, &str); 7] = [
        ("endpoint", "https-metrics"),
        ("instance", &instance),
        ("job", "kubelet"),
        ("metrics_path", "/metrics/cadvisor"),
        ("node", &node),
        ("service", "kubelet"),
        ("cluster", "prod-eu-west-1"),
    ];
    let slice = format!(
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
        pod.uid.replace('-', "_")
    );
    let owner: [(&str, &str); 2] = [("namespace", &pod.namespace), ("pod", &pod.name)];
    for container in &pod.containers {
        let id = format!("{slice}/cri-containerd-{}.scope", container.id);
        let own: [(&str, &str); 4] = [
            ("container", &container.name),
            ("id", &id),
            ("image", &container.image),
            ("name", &container.id),
        ];
        for metric in CONTAINER_METRICS {
            // Not every container has every metric.
            if rng.below(50) > 0 {
                push(all, metric, &[&target, &owner, &own]);
            }
        }
    }
    let pause: [(&str, &str); 3] =
        [("id", &slice), ("image", "registry.k8s.io/pause:3.9"), ("interface", "eth0")];
    for metric in NETWORK_METRICS {
        push(all, metric, &[&target, &owner, &pause]);
    }
}

fn kube_state(pod: &Pod, all: &mut Vec<Labels>) {
    let target: [(&str, &str); 9] = [
        ("cluster", "prod-eu-west-1"),
        ("endpoint", "http"),
        ("instance", "10.3.7.19:8080"),
        ("job", "kube-state-metrics"),
        ("service", "prometheus-kube-state-metrics"),
        ("exported_node", ""),
        ("namespace", &pod.namespace),
        ("pod", &pod.name),
        ("uid", &pod.uid),
    ];
    let host = format!("10.0.{}.{}", pod.node / 16, pod.node % 16);
    let info: [(&str, &str); 4] = [
        ("created_by_kind", "ReplicaSet"),
        ("created_by_name", pod.name.rsplit_once('-').map_or("", |(set, _)| set)),
        ("host_ip", &host),
        ("pod_ip", &pod.ip),
    ];
    push(all, "kube_pod_info", &[&target, &info]);
    for metric in ["kube_pod_created", "kube_pod_start_time", "kube_pod_status_ready_time"] {
        push(all, metric, &[&target]);
    }
    for phase in ["Failed", "Pending", "Running", "Succeeded", "Unknown"] {
        push(all, "kube_pod_status_phase", &[&target, &[("phase", phase)]]);
    }
    for container in &pod.containers {
        let own: [(&str, &str); 1] = [("container", &container.name)];
        for metric in ["kube_pod_container_status_ready", "kube_pod_container_status_restarts_total"] {
            push(all, metric, &[&target, &own]);
        }
        let id = format!("containerd://{}", container.id);
        let info: [(&str, &str); 3] =
            [("container_id", &id), ("image", &container.image), ("image_id", &container.image)];
        push(all, "kube_pod_container_info", &[&target, &own, &info]);
    }
}

fn application(rng: &mut Rng, pod: &Pod, all: &mut Vec<Labels>) {
    if rng.below(16) > 0 {
        return;
    }
    let instance = format!("{}:8080", pod.ip);
    let target: [(&str, &str); 7] = [
        ("app", &pod.app),
        ("cluster", "prod-eu-west-1"),
        ("endpoint", "metrics"),
        ("instance", &instance),
        ("job", &pod.app),
        ("namespace", &pod.namespace),
        ("pod", &pod.name),
    ];
    for metric in ["go_goroutines", "go_threads", "process_cpu_seconds_total", "process_open_fds", "up"] {
        push(all, metric, &[&target]);
    }
    for handler in ["/", "/login", "/orders", "/orders/{id}"] {
        for code in ["200", "404", "500"] {
            push(
                all,
                "http_requests_total",
                &[&target, &[("handler", handler), ("code", code), ("method", "GET")]],
            );
        }
        for le in ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1", "2.5", "5", "10", "+Inf"] {
            push(
                all,
                "http_request_duration_seconds_bucket",
                &[&target, &[("handler", handler), ("le", le)]],
            );
        }
        for metric in ["http_request_duration_seconds_count", "http_request_duration_seconds_sum"] {
            push(all, metric, &[&target, &[("handler", handler)]]);
        }
    }
}

fn node_exporter(node: u64, all: &mut Vec<Labels>) {
    let instance = format!("10.0.{}.{}:9100", node / 16, node % 16);
    let target: [(&str, &str); 4] = [
        ("cluster", "prod-eu-west-1"),
        ("instance", &instance),
        ("job", "node-exporter"),
        ("namespace", "monitoring"),
    ];
    for metric in
        ["node_load1", "node_load5", "node_load15", "node_memory_MemFree_bytes", "node_boot_time_seconds"]
    {
        push(all, metric, &[&target]);
    }
    for cpu in 0..8 {
        for mode in ["idle", "iowait", "irq", "nice", "softirq", "steal", "system", "user"] {
            push(all, "node_cpu_seconds_total", &[&target, &[("cpu", &cpu.to_string()), ("mode", mode)]]);
        }
    }
    for device in ["nvme0n1", "nvme1n1"] {
        for metric in
            ["node_disk_read_bytes_total", "node_disk_written_bytes_total", "node_disk_io_time_seconds_total"]
        {
            push(all, metric, &[&target, &[("device", device)]]);
        }
    }
}
