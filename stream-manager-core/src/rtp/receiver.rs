//! The tracks of one sender into a hub.
//!
//! Packets are put into order, made into access units and pushed. The tracks are announced once the parameters of
//! all of them are known, video first; frames before that have nowhere to go and are dropped. A track whose
//! parameters do not come within a few seconds of packets is left out, so that it does not hold up the others.

use super::depacketize::{AccessUnit, DepacketizeError, Depacketizer};
use super::format::Description;
use super::packet::{HEADER_BYTES, PacketError, RtpPacket};
use super::reorder::Reorder;
use super::rtcp::{self, Reception, Report};
use crate::frame::{CodecParameters, MediaTime, WallTime};
use crate::hub::{HubError, HubWriter, RawFrame};
use bytes::Bytes;
use std::time::{Duration, Instant};

/// How long to wait for the parameters of a track whose sender does not state them.
const PARAMETERS_TIMEOUT: Duration = Duration::from_secs(5);

/// Counters of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverStats {
    /// RTP packets taken.
    pub packets: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets that never came.
    pub lost: u64,
    /// Packets that made no sense, doubles, and those that came too late.
    pub dropped: u64,
}

/// Brings one sender's tracks into a hub.
#[derive(Debug)]
pub struct Receiver {
    tracks: Vec<TrackIn>,
    announced: bool,
    began: Option<Instant>,
    keyframe_at: Option<Instant>,
    stats: ReceiverStats,
    ssrc: u32,
}

#[derive(Debug)]
struct TrackIn {
    description: Description,
    depacketizer: Depacketizer,
    reorder: Reorder,
    ssrc: Option<u32>,
    /// The last timestamp, unwrapped.
    ticks: Option<i64>,
    /// The hub's number.
    number: Option<u32>,
    left_out: bool,
    /// Where the sender's wall clock and its RTP clock meet.
    report: Option<(i64, WallTime)>,
    /// What a receiver report needs.
    heard: Heard,
}

#[derive(Debug, Default)]
struct Heard {
    first: Option<u16>,
    cycles: u32,
    highest: u16,
    received: u32,
    expected_before: u32,
    received_before: u32,
    transit: Option<i64>,
    jitter: f64,
    last_report: Option<(u32, Instant)>,
}

impl Receiver {
    /// For tracks as their sender describes them. Up to `reorder` packets of a track wait for one that is late; 0 if
    /// they come in order by themselves.
    ///
    /// # Errors
    /// If the description of a track contradicts itself.
    pub fn new(descriptions: &[Description], reorder: usize) -> Result<Self, DepacketizeError> {
        let tracks = descriptions
            .iter()
            .map(|description| {
                Ok(TrackIn {
                    description: description.clone(),
                    depacketizer: Depacketizer::new(description)?,
                    reorder: Reorder::new(reorder),
                    ssrc: None,
                    ticks: None,
                    number: None,
                    left_out: false,
                    report: None,
                    heard: Heard::default(),
                })
            })
            .collect::<Result<_, DepacketizeError>>()?;
        Ok(Self {
            tracks,
            announced: false,
            began: None,
            keyframe_at: None,
            stats: ReceiverStats::default(),
            ssrc: fastrand::u32(1..),
        })
    }

    /// Its counters.
    pub fn stats(&self) -> ReceiverStats {
        let lost = self.tracks.iter().map(|t| t.reorder.lost()).sum();
        let late: u64 = self.tracks.iter().map(|t| t.reorder.dropped()).sum();
        ReceiverStats { lost, dropped: self.stats.dropped + late, ..self.stats }
    }

    /// Takes a packet of a track.
    ///
    /// # Errors
    /// If it is no RTP packet; the hub refuses nothing that is announced.
    pub fn rtp(&mut self, track: usize, data: &Bytes, hub: &HubWriter) -> Result<(), PacketError> {
        let packet = RtpPacket::parse(data).inspect_err(|_| self.stats.dropped += 1)?;
        self.packet(track, packet, hub);
        Ok(())
    }

    /// The same, read already.
    pub fn packet(&mut self, track: usize, packet: RtpPacket, hub: &HubWriter) {
        let now = Instant::now();
        let Some(state) = self.tracks.get_mut(track) else { return };
        if packet.payload_type != state.description.payload_type {
            self.stats.dropped += 1;
            return;
        }
        // The first sender is the one; another that writes to the same place is not mixed in.
        if *state.ssrc.get_or_insert(packet.ssrc) != packet.ssrc {
            state.ssrc = Some(packet.ssrc);
            state.heard = Heard::default();
        }
        self.stats.packets += 1;
        self.stats.bytes += (HEADER_BYTES + packet.payload.len()) as u64;
        let passed = now.duration_since(*self.began.get_or_insert(now));
        state.heard.packet(&packet, passed, state.description.clock_rate);
        let late = passed > PARAMETERS_TIMEOUT;
        let units = self.depacketize(track, hub, |reorder, out| reorder.push(packet, now, out));
        if !self.announced {
            self.announce(hub, late);
        }
        units.into_iter().for_each(|unit| self.deliver(track, unit, hub));
    }

    /// Gives out what still waits for packets that will not come any more: the sender has ended.
    pub fn finish(&mut self, hub: &HubWriter) {
        for track in 0..self.tracks.len() {
            let units = self.depacketize(track, hub, |reorder, out| reorder.flush(out));
            units.into_iter().for_each(|unit| self.deliver(track, unit, hub));
        }
    }

    /// The access units of a track's packets whose turn it is.
    fn depacketize(
        &mut self,
        track: usize,
        hub: &HubWriter,
        take: impl FnOnce(&mut Reorder, &mut dyn FnMut(RtpPacket, u16)),
    ) -> Vec<AccessUnit> {
        let Some(state) = self.tracks.get_mut(track) else { return Vec::new() };
        let mut units: Vec<AccessUnit> = Vec::new();
        let (mut dropped, mut lost_now) = (0, 0);
        let (depacketizer, last) = (&mut state.depacketizer, &mut state.ticks);
        take(&mut state.reorder, &mut |packet, lost| {
            lost_now += u64::from(lost);
            let ticks = unwrap(*last, packet.timestamp);
            *last = Some(ticks);
            if depacketizer.push(&packet, ticks, lost).is_err() {
                dropped += 1;
            }
            while let Some(unit) = depacketizer.pull() {
                units.push(unit);
            }
        });
        self.stats.dropped += dropped;
        if lost_now > 0 {
            hub.report_loss(lost_now);
        }
        units
    }

    fn deliver(&mut self, track: usize, unit: AccessUnit, hub: &HubWriter) {
        let Some(state) = self.tracks.get_mut(track) else { return };
        let Some(number) = state.number else { return };
        if unit.keyframe && state.description.media == "video" {
            self.keyframe_at = Some(Instant::now());
        }
        if let Some(parameters) = unit.parameters {
            // Refused only for tracks that were never announced.
            let _: Result<(), HubError> = hub.set_parameters(number, parameters);
        }
        let rate = state.description.clock_rate;
        let ntp = state.report.map(|(at, wall)| {
            let since = MediaTime::from_ticks(unit.ticks.saturating_sub(at), rate).as_nanos();
            WallTime::from_unix_nanos(wall.as_unix_nanos().saturating_add(since))
        });
        let pts = Some(MediaTime::from_ticks(unit.ticks, rate));
        let frame = RawFrame { track: number, pts, dts: None, ntp, keyframe: unit.keyframe, data: unit.data };
        let _: Result<(), HubError> = hub.push(frame);
    }

    /// Announces the tracks if all that are not left out are known.
    fn announce(&mut self, hub: &HubWriter, late: bool) {
        for state in &mut self.tracks {
            state.left_out = late && state.depacketizer.parameters().is_none();
        }
        let used: Vec<usize> = (0..self.tracks.len()).filter(|i| !self.tracks[*i].left_out).collect();
        if used.is_empty() || used.iter().any(|i| self.tracks[*i].depacketizer.parameters().is_none()) {
            return;
        }
        let mut order = used;
        order.sort_by_key(|i| self.tracks[*i].depacketizer.parameters().map(CodecParameters::kind));
        for (number, index) in (0u32..).zip(&order) {
            self.tracks[*index].number = Some(number);
        }
        hub.set_tracks(order.iter().filter_map(|i| self.tracks[*i].depacketizer.parameters().cloned()));
        self.announced = true;
    }

    /// Takes an RTCP packet of a track: its sender's clock is learnt from it.
    pub fn rtcp(&mut self, track: usize, data: &[u8]) {
        let Ok(reports) = rtcp::parse(data) else {
            self.stats.dropped += 1;
            return;
        };
        let Some(state) = self.tracks.get_mut(track) else { return };
        for report in reports {
            let Report::Sender { ssrc, ntp, timestamp } = report else { continue };
            if state.ssrc.is_some_and(|known| known != ssrc) {
                continue;
            }
            state.heard.last_report = Some(((ntp >> 16) as u32, Instant::now()));
            // A sender without a clock says zero (RFC 3550 section 6.4.1).
            if ntp != 0 {
                state.clocks_meet(WallTime::from_ntp(ntp), timestamp);
            }
        }
    }

    /// What a track's sender has said of its clocks, read already.
    pub fn sender_clock(&mut self, track: usize, wall: WallTime, timestamp: u32) {
        if let Some(state) = self.tracks.get_mut(track) {
            state.clocks_meet(wall, timestamp);
        }
    }

    /// When a picture that others build upon was last given out.
    pub fn keyframe_at(&self) -> Option<Instant> {
        self.keyframe_at
    }

    /// A receiver report for a track, once it has been heard of.
    pub fn report(&mut self, track: usize) -> Option<Vec<u8>> {
        let state = self.tracks.get_mut(track)?;
        let reception = state.heard.reception(state.ssrc?)?;
        Some(rtcp::receiver_report(self.ssrc, &reception))
    }
}

impl TrackIn {
    fn clocks_meet(&mut self, wall: WallTime, timestamp: u32) {
        if self.ticks.is_some() {
            self.report = Some((unwrap(self.ticks, timestamp), wall));
        }
    }
}

impl Heard {
    /// RFC 3550 appendix A.1, A.3 and A.8. `arrived` counts from anywhere: only differences matter.
    fn packet(&mut self, packet: &RtpPacket, arrived: Duration, rate: u32) {
        if self.first.is_none() {
            self.first = Some(packet.sequence);
            self.highest = packet.sequence;
        }
        let ahead = packet.sequence.wrapping_sub(self.highest);
        if ahead < 0x8000 {
            if packet.sequence < self.highest {
                self.cycles = self.cycles.wrapping_add(1 << 16);
            }
            self.highest = packet.sequence;
        }
        self.received = self.received.wrapping_add(1);
        let arrival = arrived.as_secs_f64() * f64::from(rate);
        let transit = i64::from((arrival as i64 as u32).wrapping_sub(packet.timestamp) as i32);
        if let Some(before) = self.transit.replace(transit) {
            let difference = (transit - before).unsigned_abs() as f64;
            if difference < f64::from(rate) * 10.0 {
                self.jitter += (difference - self.jitter) / 16.0;
            }
        }
    }

    fn reception(&mut self, ssrc: u32) -> Option<Reception> {
        let first = u32::from(self.first?);
        let highest = self.cycles.wrapping_add(u32::from(self.highest));
        let expected = highest.wrapping_sub(first).wrapping_add(1);
        let lost = expected.saturating_sub(self.received);
        let (expected_now, received_now) =
            (expected.wrapping_sub(self.expected_before), self.received.wrapping_sub(self.received_before));
        (self.expected_before, self.received_before) = (expected, self.received);
        let fraction =
            u64::from(expected_now.saturating_sub(received_now)) * 256 / u64::from(expected_now.max(1));
        let (last_report, delay) = match self.last_report {
            Some((report, at)) => (report, (at.elapsed().as_secs_f64() * 65_536.0) as u32),
            None => (0, 0),
        };
        Some(Reception {
            ssrc,
            fraction_lost: fraction.min(255) as u8,
            lost,
            highest,
            jitter: self.jitter as u32,
            last_report,
            delay,
        })
    }
}

/// The timestamp nearest to the last one.
fn unwrap(last: Option<i64>, timestamp: u32) -> i64 {
    match last {
        None => i64::from(timestamp),
        Some(last) => last.saturating_add(i64::from(timestamp.wrapping_sub(last as u32) as i32)),
    }
}
