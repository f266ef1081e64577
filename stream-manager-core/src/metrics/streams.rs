//! What streams, their readers, recordings, forwards and analyses count.

use super::write::{Labels, counter, gauge, truth};
use crate::event::{RecordingState, StreamState};
use crate::hub::ConsumerStats;
use crate::manager::{StreamFilter, StreamInfo, StreamManager, StreamOrder, StreamStatus};
use crate::sink::forward::ForwardState;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use std::collections::BTreeMap;
use std::fmt;

/// The streams as they were at one moment.
pub(super) struct Streams {
    states: [(StreamState, u64); StreamState::ALL.len()],
    streams: Vec<Stream>,
    #[cfg(feature = "inference")]
    analyses: Vec<(String, crate::inference::AnalysisStatus)>,
    #[cfg(feature = "inference")]
    models: Vec<crate::inference::ModelStatus>,
}

struct Stream {
    status: StreamStatus,
    /// By name: two of the same name would be two series of the same name.
    consumers: BTreeMap<String, ConsumerStats>,
}

impl Streams {
    pub(super) fn of(manager: &StreamManager) -> Self {
        let infos = manager.infos(&StreamFilter::default(), StreamOrder::Id, false);
        let states = StreamState::ALL.map(|state| {
            let count = infos.iter().filter(|info| info.state() == state).count();
            (state, count as u64)
        });
        let streams = infos.iter().filter_map(StreamInfo::status).map(|status| {
            let mut consumers: BTreeMap<String, ConsumerStats> = BTreeMap::new();
            for (name, stats) in &status.consumers {
                let sum = consumers.entry(name.clone()).or_default();
                sum.frames += stats.frames;
                sum.bytes += stats.bytes;
                sum.dropped_frames += stats.dropped_frames;
                sum.queued_frames += stats.queued_frames;
                sum.queued_bytes += stats.queued_bytes;
                sum.lag = sum.lag.max(stats.lag);
            }
            Stream { status, consumers }
        });
        Self {
            states,
            streams: streams.collect(),
            #[cfg(feature = "inference")]
            analyses: infos
                .iter()
                .filter_map(|info| Some((info.id.to_string(), info.handle()?.analysis().status())))
                // Also of those that take the only model there is, which they need not name.
                .filter(|(_, status)| {
                    status.model.is_some() || status.state != crate::inference::AnalysisState::Off
                })
                .collect(),
            #[cfg(feature = "inference")]
            models: manager.models().all().iter().map(crate::inference::Model::status).collect(),
        }
    }

    fn each<T>(&self, value: impl Fn(&StreamStatus) -> Option<T>) -> Vec<(Labels, T)> {
        let one = |s: &Stream| Some((vec![("stream", s.status.id.to_string())], value(&s.status)?));
        self.streams.iter().filter_map(one).collect()
    }

    fn consumers<T>(&self, value: impl Fn(&ConsumerStats) -> T) -> Vec<(Labels, T)> {
        let of = |s: &Stream| {
            let id = s.status.id.to_string();
            let one = |(name, stats): (&String, &ConsumerStats)| {
                (vec![("stream", id.clone()), ("consumer", name.clone())], value(stats))
            };
            s.consumers.iter().map(one).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(of).collect()
    }

    fn forwards<T>(&self, value: impl Fn(&crate::sink::forward::ForwardStatus) -> T) -> Vec<(Labels, T)> {
        let of = |s: &Stream| {
            // The same address twice would be the same series twice.
            let by_url: BTreeMap<_, _> = s.status.forwards.iter().map(|f| (f.url.clone(), f)).collect();
            let id = s.status.id.to_string();
            let one = |(url, forward)| (vec![("stream", id.clone()), ("url", url)], value(forward));
            by_url.into_iter().map(one).collect::<Vec<_>>()
        };
        self.streams.iter().flat_map(of).collect()
    }
}

#[cfg(not(feature = "inference"))]
impl Streams {
    fn inference(&self, _: &mut DescriptorEncoder<'_>) -> fmt::Result {
        Ok(())
    }
}

#[cfg(feature = "inference")]
impl Streams {
    fn analysed<T>(
        &self,
        value: impl Fn(&crate::inference::AnalysisStatus) -> Option<T>,
    ) -> Vec<(Labels, T)> {
        let one = |(id, status): &(String, crate::inference::AnalysisStatus)| {
            Some((vec![("stream", id.clone())], value(status)?))
        };
        self.analyses.iter().filter_map(one).collect()
    }

    fn inference(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counted = |value: fn(&crate::inference::AnalysisStatus) -> u64| self.analysed(|s| Some(value(s)));
        counter(out, "inference_decoded_frames", "Frames decoded for analysis", counted(|s| s.decoded))?;
        counter(out, "inference_pictures", "Pictures that were analysed", counted(|s| s.analysed))?;
        counter(
            out,
            "inference_dropped_pictures",
            "Pictures that a newer one replaced",
            counted(|s| s.dropped),
        )?;
        counter(
            out,
            "inference_still_pictures",
            "Pictures in which nothing had moved",
            counted(|s| s.still),
        )?;
        counter(out, "inference_failed_pictures", "Pictures whose analysis failed", counted(|s| s.errors))?;
        gauge(
            out,
            "inference_latency_seconds",
            "From the last analysed frame's arrival to its answer",
            self.analysed(|s| s.latency_secs),
        )?;
        let scene =
            |value: fn(&crate::inference::SceneStatus) -> u64| self.analysed(|s| s.scene.as_ref().map(value));
        let tracked = self.analysed(|s| s.scene.as_ref().map(|scene| scene.tracked as f64));
        gauge(out, "inference_tracked_objects", "Objects that are followed", tracked)?;
        counter(
            out,
            "inference_left_out_objects",
            "Objects that were one too many in their picture, and are not followed",
            scene(|s| s.left_out),
        )?;
        counter(
            out,
            "inference_suppressed_events",
            "Events that were one too many in their minute",
            scene(|s| s.suppressed),
        )?;
        let model = |value: fn(&crate::inference::ModelStatus) -> f64| -> Vec<(Labels, f64)> {
            self.models.iter().map(|m| (vec![("model", m.name.clone())], value(m))).collect()
        };
        let ready = |m: &crate::inference::ModelStatus| truth(m.state == crate::inference::ModelState::Ready);
        gauge(out, "model_ready", "Whether a model can be used", model(ready))?;
        gauge(out, "model_waiting_pictures", "Pictures that wait for a model", model(|m| m.waiting as f64))?;
        let counted = self.models.iter().map(|m| (vec![("model", m.name.clone())], m.stats.pictures));
        counter(out, "model_pictures", "Pictures that a model has computed", counted.collect())?;
        gauge(
            out,
            "model_run_seconds",
            "How long a model has computed since the start",
            model(|m| m.stats.run_secs),
        )
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl Collector for Streams {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let out = &mut encoder;
        let states = self.states.iter();
        let states = states.map(|(state, count)| (vec![("state", state.name().to_owned())], *count as f64));
        gauge(out, "streams", "Streams by state", states.collect())?;

        let running = |s: &StreamStatus| Some(truth(s.state.state == StreamState::Running));
        gauge(out, "stream_running", "Whether the stream's source delivers", self.each(running))?;
        counter(
            out,
            "stream_sessions",
            "Connections to the source that were begun",
            self.each(|s| Some(s.hub.sessions)),
        )?;
        counter(out, "stream_frames", "Frames that came in", self.each(|s| Some(s.hub.frames)))?;
        counter(out, "stream_received_bytes", "Payload that came in", self.each(|s| Some(s.hub.bytes)))?;
        counter(
            out,
            "stream_lost_packets",
            "RTP packets that did not come",
            self.each(|s| Some(s.hub.packets_lost)),
        )?;

        let active = |s: &StreamStatus| s.fallback.as_ref().map(|f| truth(f.active));
        gauge(
            out,
            "stream_fallback_active",
            "Whether the fallback is what readers get; only of streams that have one",
            self.each(active),
        )?;
        let switches = |s: &StreamStatus| s.fallback.as_ref().map(|f| f.switches);
        counter(out, "stream_fallback_switches", "How often the fallback stood in", self.each(switches))?;

        counter(out, "consumer_frames", "Frames handed out to a consumer", self.consumers(|c| c.frames))?;
        counter(
            out,
            "consumer_dropped_frames",
            "Frames that a consumer was too slow for",
            self.consumers(|c| c.dropped_frames),
        )?;
        gauge(
            out,
            "consumer_queued_frames",
            "Frames that wait for a consumer",
            self.consumers(|c| c.queued_frames as f64),
        )?;
        gauge(
            out,
            "consumer_lag_seconds",
            "Media time that a consumer is behind",
            self.consumers(|c| c.lag.as_secs_f64()),
        )?;

        let running = |f: &crate::sink::forward::ForwardStatus| truth(f.state == ForwardState::Running);
        gauge(out, "forward_running", "Whether a forward takes frames", self.forwards(running))?;
        counter(out, "forward_sent_bytes", "What was sent to a forward", self.forwards(|f| f.bytes))?;

        let recorded = |s: &StreamStatus| Some(truth(s.recording.state == RecordingState::Recording));
        gauge(out, "recording_active", "Whether the stream is being recorded", self.each(recorded))?;
        counter(
            out,
            "recording_segments",
            "Segments that were finished",
            self.each(|s| Some(s.recording.segments)),
        )?;
        counter(
            out,
            "recording_lost_frames",
            "Frames that the disk was too slow for, or that came while it could not be written to",
            self.each(|s| Some(s.recording.lost_frames)),
        )?;
        let blocked = |s: &StreamStatus| Some(truth(s.recording.state == RecordingState::Blocked));
        gauge(out, "recording_blocked", "Whether the recording is to run and cannot", self.each(blocked))?;
        let written = |s: &StreamStatus| Some(s.recording.bytes);
        counter(out, "recording_written_bytes", "What was written to recordings", self.each(written))?;
        gauge(
            out,
            "recording_written_media_seconds",
            "How much media was written to recordings since the start",
            self.each(|s| Some(s.recording.duration_secs)),
        )?;
        let pre_roll = |s: &StreamStatus| Some(s.recording.pre_roll_bytes as f64);
        gauge(
            out,
            "recording_pre_roll_bytes",
            "What is kept in memory of what came before an event",
            self.each(pre_roll),
        )?;
        let failed = |s: &StreamStatus| Some(f64::from(s.state.failed_attempts));
        gauge(out, "stream_failed_attempts", "Attempts to connect that failed in a row", self.each(failed))?;
        self.inference(out)
    }
}
