//! The process, by the names that all Prometheus clients use.

use super::write::gauge;
use crate::manager::SystemReport;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use std::fmt;

#[derive(Debug)]
pub(super) struct Process {
    pub(super) system: Option<SystemReport>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(system) = &self.system else { return Ok(()) };
        let out = &mut encoder;
        if let Some(secs) = system.cpu_secs {
            let help = "Processor time that the process has used";
            let mut metric = out.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
            metric.encode_counter::<NoLabelSet, _, f64>(&secs, None)?;
        }
        let mut one = |name: &str, help: &str, value: Option<f64>| {
            gauge(out, name, help, value.map(|value| (Vec::new(), value)).into_iter().collect())
        };
        one(
            "process_resident_memory_bytes",
            "Memory that the process has",
            system.memory_bytes.map(|b| b as f64),
        )?;
        one("process_open_fds", "Files and sockets that are open", system.open_files.map(|n| n as f64))?;
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        one("process_max_fds", "Files and sockets that may be open", limit.map(|n| n as f64))?;
        one("process_threads", "Threads of the process", system.threads.map(|n| n as f64))?;
        let started = system.started.as_unix_nanos() as f64 / 1e9;
        one("process_start_time_seconds", "When the process started, since 1970", Some(started))
    }
}
