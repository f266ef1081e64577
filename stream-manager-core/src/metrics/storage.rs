//! Disks, and what is kept on them.

use super::write::{Labels, counter, gauge, truth};
use crate::manager::{DirectoryReport, StorageReport, StreamReport};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;

#[derive(Debug)]
pub(super) struct Storage {
    pub(super) report: StorageReport,
}

impl Storage {
    fn each<T>(&self, value: impl Fn(&DirectoryReport) -> Option<T>) -> Vec<(Labels, T)> {
        let one = |d: &DirectoryReport| Some((vec![("directory", d.name.clone())], value(d)?));
        self.report.directories.iter().filter_map(one).collect()
    }

    fn streams(&self, value: impl Fn(&StreamReport) -> Option<f64>) -> Vec<(Labels, f64)> {
        let one = |s: &StreamReport| Some((vec![("stream", s.id.clone())], value(s)?));
        self.report.streams.iter().filter_map(one).collect()
    }
}

impl Collector for Storage {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        gauge(
            out,
            "storage_up",
            "Whether a folder for recordings can be recorded to",
            self.each(|d| Some(truth(d.state != "unavailable"))),
        )?;
        gauge(
            out,
            "storage_slow",
            "Whether a folder's disk is slow",
            self.each(|d| Some(truth(d.state == "slow"))),
        )?;
        let bytes = |value: Option<u64>| value.map(|bytes| bytes as f64);
        gauge(out, "storage_size_bytes", "The size of a folder's disk", self.each(|d| bytes(d.total_bytes)))?;
        gauge(out, "storage_free_bytes", "Room on a folder's disk", self.each(|d| bytes(d.free_bytes)))?;
        gauge(
            out,
            "storage_min_free_bytes",
            "Room that is kept free",
            self.each(|d| bytes(d.min_free_bytes)),
        )?;
        gauge(
            out,
            "storage_recorded_bytes",
            "The recordings in a folder",
            self.each(|d| Some(d.recorded_bytes as f64)),
        )?;
        gauge(
            out,
            "storage_write_rate_bytes_per_second",
            "What the running recordings write, as measured",
            self.each(|d| Some(d.bytes_per_hour as f64 / 3600.0)),
        )?;
        gauge(
            out,
            "storage_room_seconds",
            "How long until the first old recording has to go, at that rate",
            self.each(|d| d.days_of_room.map(|days| days * 86_400.0)),
        )?;
        counter(out, "storage_writes", "Parts written to a folder's disk", self.each(|d| Some(d.writes)))?;
        counter(out, "storage_written_bytes", "Bytes written to it", self.each(|d| Some(d.written_bytes)))?;
        counter(out, "storage_syncs", "Times that data was made safe on it", self.each(|d| Some(d.syncs)))?;
        gauge(
            out,
            "storage_queued_writes",
            "Writes that wait for a folder's disk",
            self.each(|d| Some(d.queued_writes as f64)),
        )?;
        gauge(
            out,
            "storage_slowest_write_seconds",
            "The slowest write of the last second",
            self.each(|d| Some(d.slowest_write_secs)),
        )?;
        gauge(
            out,
            "storage_sync_behind_seconds",
            "How far making data safe is behind",
            self.each(|d| Some(d.sync_behind_secs)),
        )?;
        let unmet = vec![(Vec::new(), self.report.unmet.len() as f64)];
        gauge(out, "storage_unmet_limits", "Limits of retention that cannot be kept", unmet)?;
        let problem = vec![(Vec::new(), truth(self.report.index_problem.is_none()))];
        gauge(out, "index_up", "Whether the index of recordings can be written to", problem)?;
        gauge(
            out,
            "recording_kept_bytes",
            "What is kept of a stream",
            self.streams(|s| Some(s.bytes as f64)),
        )?;
        gauge(
            out,
            "recording_kept_segments",
            "The segments that are kept of a stream",
            self.streams(|s| Some(s.segments as f64)),
        )?;
        let secs = |time: Option<crate::frame::WallTime>| time.map(|time| time.as_unix_nanos() as f64 / 1e9);
        gauge(
            out,
            "recording_oldest_timestamp_seconds",
            "Where the recordings of a stream begin, since 1970",
            self.streams(|s| secs(s.oldest)),
        )?;
        gauge(
            out,
            "recording_newest_timestamp_seconds",
            "Where they end, since 1970",
            self.streams(|s| secs(s.newest)),
        )
    }
}
