//! A WHIP client that publishes pictures it has got elsewhere.

use super::http::Answer;
use super::whep::{Received, by_way_of, candidate, post, receive};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use str0m::change::SdpAnswer;
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, MediaTime, Mid, Pt};
use str0m::{Candidate, Event, Output, Rtc, RtcConfig};

/// A client that publishes.
pub struct Publisher {
    rtc: Rtc,
    socket: UdpSocket,
    video: Mid,
    payload_type: Option<Pt>,
    /// The session's address.
    pub session: String,
    /// The answer.
    pub answer: String,
    /// When it was connected.
    pub connected: bool,
    /// Whether the server has said goodbye.
    pub closed: bool,
    /// How often a keyframe was asked for.
    pub asked: usize,
    began: Option<Instant>,
    sent: u64,
}

impl Publisher {
    /// What would be offered, with the codecs that the configuration has.
    pub fn offer(config: RtcConfig, direction: Direction) -> String {
        let mut rtc = config.build(Instant::now());
        let mut change = rtc.sdp_api();
        change.add_media(MediaKind::Video, direction, None, None, None);
        change.add_media(MediaKind::Audio, direction, None, None, None);
        change.apply().unwrap().0.to_sdp_string()
    }

    /// Connects. Panics if the server does not want that.
    pub fn connect(url: &str) -> Self {
        Self::connect_through(url, |_| None)
    }

    /// The same, with something between: gets the server's address, gives its own.
    pub fn connect_through(url: &str, between: impl FnOnce(SocketAddr) -> Option<SocketAddr>) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mut rtc = RtcConfig::new().clear_codecs().enable_h264(true).build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
        let mut change = rtc.sdp_api();
        let video = change.add_media(MediaKind::Video, Direction::SendOnly, None, None, None);
        let (offer, pending) = change.apply().unwrap();
        let answer: Answer = post(url, &offer.to_sdp_string(), &[]);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let sdp = answer.text();
        let sdp = between(candidate(&sdp)).map_or(sdp.clone(), |through| by_way_of(&sdp, through));
        rtc.sdp_api().accept_answer(pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
        Self {
            rtc,
            socket,
            video,
            payload_type: None,
            session: super::http::join(url, answer.header("location")),
            answer: sdp,
            connected: false,
            closed: false,
            asked: 0,
            began: None,
            sent: 0,
        }
    }

    /// Goes on until something holds. Panics if it does not in time.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + limit;
        while !done(self) {
            assert!(Instant::now() < end, "{what}: not within {limit:?}; connected {}", self.connected);
            self.step(Instant::now() + Duration::from_millis(20));
        }
    }

    /// Sends pictures, 25 a second. Stops if the server says goodbye.
    pub fn send(&mut self, pictures: &[Received]) {
        for picture in pictures {
            let began = *self.began.get_or_insert_with(Instant::now);
            let due = began + Duration::from_millis(40 * self.sent);
            while Instant::now() < due && !self.closed {
                self.step(due);
            }
            if self.closed {
                return;
            }
            let payload_type = *self.payload_type.get_or_insert_with(|| {
                let writer = self.rtc.writer(self.video).unwrap();
                writer.payload_params().find(|p| p.spec().codec == Codec::H264).unwrap().pt()
            });
            let time = MediaTime::from_90khz(90_000 + self.sent * 3600);
            let writer = self.rtc.writer(self.video).unwrap();
            writer.write(payload_type, due, time, picture.data.to_vec()).unwrap();
            self.sent += 1;
            self.step(Instant::now());
        }
    }

    fn step(&mut self, until: Instant) {
        let wait = loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    // Nobody may be there any more.
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.connected = true,
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::KeyframeRequest(_)) => self.asked += 1,
                Output::Event(_) => {}
            }
        };
        receive(&mut self.rtc, &self.socket, wait.min(until));
    }
}
