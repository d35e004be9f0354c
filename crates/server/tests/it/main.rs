//! The HTTP side as a client sees it. Bodies are those of Prometheus 3.5.3, but where a comment says otherwise.

mod admin;
mod api;
mod clients;
mod exemplars;
mod explain;
mod full_disk;
mod harness;
mod http;
mod influx;
mod otlp;
mod overload;
mod query_log;
mod serve;
mod warnings;
mod write;
