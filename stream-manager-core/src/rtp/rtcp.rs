//! RTCP (RFC 3550 section 6): sender reports out, receiver reports in, and the reverse for publishers.

use crate::frame::WallTime;
use rtcp_types::{
    Bye, Compound, Packet, ReceiverReport, ReportBlock, RtcpPacketWriter, RtcpPacketWriterExt, Sdes,
    SdesChunk, SdesItem, SenderReport,
};
use std::time::Duration;

/// A compound packet is never longer than this here.
const MAX_BYTES: usize = 1400;
/// The canonical name that all reports carry.
const CNAME: &str = "stream-manager";

fn write(writer: &impl RtcpPacketWriter) -> Vec<u8> {
    let mut data = vec![0; MAX_BYTES];
    // What is made here always fits.
    let length = writer.write_into(&mut data).unwrap_or(0);
    data.truncate(length);
    data
}

fn name(ssrc: u32) -> rtcp_types::SdesBuilder<'static> {
    Sdes::builder().add_chunk(SdesChunk::builder(ssrc).add_item(SdesItem::builder(SdesItem::CNAME, CNAME)))
}

/// A sender report: at `wall`, the track's clock stands at `timestamp`.
pub fn sender_report(ssrc: u32, wall: WallTime, timestamp: u32, packets: u32, octets: u32) -> Vec<u8> {
    let report = SenderReport::builder(ssrc)
        .ntp_timestamp(wall.to_ntp())
        .rtp_timestamp(timestamp)
        .packet_count(packets)
        .octet_count(octets);
    write(&Compound::builder().add_packet(report).add_packet(name(ssrc)))
}

/// A report that the sender has ended.
pub fn bye(ssrc: u32) -> Vec<u8> {
    let empty = ReceiverReport::builder(ssrc);
    write(&Compound::builder().add_packet(empty).add_packet(Bye::builder().add_source(ssrc)))
}

/// What a receiver tells of one sender (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reception {
    /// Whose packets it speaks of.
    pub ssrc: u32,
    /// Lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Lost in all.
    pub lost: u32,
    /// The highest sequence number, extended.
    pub highest: u32,
    /// Interarrival jitter in ticks of the track's clock.
    pub jitter: u32,
    /// The middle 32 bits of the last sender report's NTP time; 0 without one.
    pub last_report: u32,
    /// The delay since that one in 65536ths of a second.
    pub delay: u32,
}

impl Reception {
    /// The time there and back, if it answers one of our reports (RFC 3550 section 6.4.1).
    pub fn round_trip(&self, now: WallTime) -> Option<Duration> {
        if self.last_report == 0 {
            return None;
        }
        let now = (now.to_ntp() >> 16) as u32;
        let ticks = now.wrapping_sub(self.last_report).wrapping_sub(self.delay);
        // Clocks that step make nonsense of it.
        (ticks < 1 << 22).then(|| Duration::from_secs_f64(f64::from(ticks) / 65_536.0))
    }
}

/// A receiver report about one sender.
pub fn receiver_report(ssrc: u32, reception: &Reception) -> Vec<u8> {
    let block = ReportBlock::builder(reception.ssrc)
        .fraction_lost(reception.fraction_lost)
        .cumulative_lost(reception.lost.min(0x7f_ffff))
        .extended_sequence_number(reception.highest)
        .interarrival_jitter(reception.jitter)
        .last_sender_report_timestamp(reception.last_report)
        .delay_since_last_sender_report_timestamp(reception.delay);
    let report = ReceiverReport::builder(ssrc).add_report_block(block);
    write(&Compound::builder().add_packet(report).add_packet(name(ssrc)))
}

/// What of a compound packet matters here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// A sender's clock: NTP time and the track's clock at the same moment.
    Sender {
        /// Who sends it.
        ssrc: u32,
        /// NTP time, 64 bits.
        ntp: u64,
        /// The track's clock.
        timestamp: u32,
    },
    /// What a receiver got.
    Reception(Reception),
    /// The sender has ended.
    Bye,
}

/// Reads a compound packet; parts that are not understood are passed over.
///
/// # Errors
/// In words, if it is no RTCP.
pub fn parse(data: &[u8]) -> Result<Vec<Report>, String> {
    let mut reports = Vec::new();
    let take = |blocks: &mut dyn Iterator<Item = ReportBlock<'_>>| -> Vec<Report> {
        blocks
            .map(|b| {
                Report::Reception(Reception {
                    ssrc: b.ssrc(),
                    fraction_lost: b.fraction_lost(),
                    lost: b.cumulative_lost(),
                    highest: b.extended_sequence_number(),
                    jitter: b.interarrival_jitter(),
                    last_report: b.last_sender_report_timestamp(),
                    delay: b.delay_since_last_sender_report_timestamp(),
                })
            })
            .collect()
    };
    for packet in Compound::parse(data).map_err(|e| e.to_string())? {
        match packet {
            Ok(Packet::Sr(report)) => {
                reports.push(Report::Sender {
                    ssrc: report.ssrc(),
                    ntp: report.ntp_timestamp(),
                    timestamp: report.rtp_timestamp(),
                });
                reports.extend(take(&mut report.report_blocks()));
            }
            Ok(Packet::Rr(report)) => reports.extend(take(&mut report.report_blocks())),
            Ok(Packet::Bye(_)) => reports.push(Report::Bye),
            Ok(_) => {}
            Err(error) if reports.is_empty() => return Err(error.to_string()),
            Err(_) => break,
        }
    }
    Ok(reports)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reports_read_back() {
        let wall = WallTime::from_unix_nanos(1_700_000_000_123_456_789);
        let sent = sender_report(7, wall, 9000, 3, 4000);
        assert_eq!(parse(&sent).unwrap(), [Report::Sender { ssrc: 7, ntp: wall.to_ntp(), timestamp: 9000 }]);
        let middle = (wall.to_ntp() >> 16) as u32;
        let reception = Reception {
            ssrc: 7,
            fraction_lost: 12,
            lost: 34,
            highest: 70_000,
            jitter: 56,
            last_report: middle,
            delay: 65_536,
        };
        assert_eq!(parse(&receiver_report(8, &reception)).unwrap(), [Report::Reception(reception)]);
        let trip = reception.round_trip(wall + Duration::from_millis(1250)).unwrap();
        assert!((trip.as_secs_f64() - 0.25).abs() < 0.001, "{trip:?}");
        assert_eq!(reception.round_trip(wall), None, "answered before it was asked");
        assert_eq!(parse(&bye(7)).unwrap(), [Report::Bye]);
    }

    proptest! {
        #[test]
        fn nothing_panics(data in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&data);
            let mut with_head = vec![0x81, 201, 0, 7];
            with_head.extend_from_slice(&data);
            let _ = parse(&with_head);
        }
    }
}
