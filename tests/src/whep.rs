//! A WHEP client that takes what it gets apart.
//!
//! The client is str0m, too; browsers, aiortc and GStreamer are the other stacks that the tests play with.

use super::http::{Answer, send};
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};
use str0m::change::{SdpAnswer, SdpPendingOffer};
use str0m::format::Codec;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};

/// A frame as it arrived.
#[derive(Clone, Debug)]
pub struct Received {
    /// When.
    pub at: Instant,
    /// Its time in ticks of 90 kHz, or of the sound's rate.
    pub time: u64,
    /// Whether nothing is missing before it.
    pub contiguous: bool,
    /// The frame: Annex B for H.264.
    pub data: Arc<[u8]>,
}

impl Received {
    /// Whether it is a picture of H.264 that decoding can begin with.
    pub fn is_idr(&self) -> bool {
        self.data.windows(4).any(|w| w[..3] == [0, 0, 1] && w[3] & 31 == 5)
    }
}

/// A client before it has asked.
pub struct Offer {
    rtc: Rtc,
    pending: SdpPendingOffer,
    socket: UdpSocket,
    video: Mid,
    /// What it offers.
    pub sdp: String,
}

impl Offer {
    /// Offers to receive, with the codecs that the configuration has.
    pub fn with(config: RtcConfig) -> Self {
        Self::made(config, false, "127.0.0.1:0")
    }

    /// What browsers offer, from this address.
    pub fn from(address: &str) -> Self {
        Self::made(RtcConfig::new(), false, address)
    }

    /// The same with a data channel.
    pub fn with_channel() -> Self {
        Self::made(RtcConfig::new(), true, "127.0.0.1:0")
    }

    fn made(config: RtcConfig, channel: bool, address: &str) -> Self {
        let socket = UdpSocket::bind(address).unwrap();
        let mut rtc = config.build(Instant::now());
        rtc.add_local_candidate(Candidate::host(socket.local_addr().unwrap(), "udp").unwrap());
        let mut change = rtc.sdp_api();
        let video = change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        change.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        if channel {
            change.add_channel("events".into());
        }
        let (offer, pending) = change.apply().unwrap();
        Self { sdp: offer.to_sdp_string(), rtc, pending, socket, video }
    }

    /// What browsers offer.
    pub fn new() -> Self {
        Self::with(RtcConfig::new().enable_pcmu(true, false).enable_pcma(true, false))
    }

    /// Takes the answer. `through` is where media goes instead of where the answer says.
    pub fn accept(mut self, url: &str, answer: &Answer, through: Option<SocketAddr>) -> Client {
        let sdp = through.map_or_else(|| answer.text(), |through| by_way_of(&answer.text(), through));
        self.rtc.sdp_api().accept_answer(self.pending, SdpAnswer::from_sdp_string(&sdp).unwrap()).unwrap();
        Client {
            rtc: self.rtc,
            socket: self.socket,
            video_mid: self.video,
            session: super::http::join(url, answer.header("location")),
            video: Vec::new(),
            sound: Vec::new(),
            connected: None,
            closed: false,
            answer: sdp,
            asked: None,
            told: Vec::new(),
        }
    }
}

impl Default for Offer {
    fn default() -> Self {
        Self::new()
    }
}

/// The first candidate of a description.
pub fn candidate(sdp: &str) -> SocketAddr {
    let line = sdp.lines().find(|line| line.starts_with("a=candidate:")).expect("no candidate");
    let words: Vec<&str> = line.split(' ').collect();
    format!("{}:{}", words[4], words[5]).parse().unwrap()
}

/// An answer in which the server's address is another.
pub(super) fn by_way_of(sdp: &str, through: SocketAddr) -> String {
    let server = candidate(sdp);
    sdp.replace(
        &format!(" {} {} typ", server.ip(), server.port()),
        &format!(" {} {} typ", through.ip(), through.port()),
    )
}

/// Waits for a datagram, but not for long, and gives it to a client; or tells it that time has passed.
pub(super) fn receive(rtc: &mut Rtc, socket: &UdpSocket, until: Instant) {
    let wait = until.saturating_duration_since(Instant::now());
    let wait = wait.clamp(Duration::from_millis(1), Duration::from_millis(50));
    socket.set_read_timeout(Some(wait)).unwrap();
    let mut buffer = vec![0; 2000];
    match socket.recv_from(&mut buffer) {
        Ok((length, source)) => {
            let destination = socket.local_addr().unwrap();
            let receive = Receive::new(Protocol::Udp, source, destination, &buffer[..length]).unwrap();
            rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
        }
        Err(_) => rtc.handle_input(Input::Timeout(Instant::now())).unwrap(),
    }
}

/// Posts an offer.
pub fn post(url: &str, offer: &str, headers: &[(&str, &str)]) -> Answer {
    let mut all = vec![("content-type", "application/sdp")];
    all.extend(headers);
    send("POST", url, &all, offer.as_bytes())
}

/// A client that plays.
pub struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    video_mid: Mid,
    /// The session's address.
    pub session: String,
    /// Pictures so far.
    pub video: Vec<Received>,
    /// Frames of sound so far.
    pub sound: Vec<Received>,
    /// When it was connected.
    pub connected: Option<Instant>,
    /// Whether the server has said goodbye.
    pub closed: bool,
    /// The answer.
    pub answer: String,
    asked: Option<Instant>,
    /// What has come by its data channel.
    pub told: Vec<String>,
}

impl Client {
    /// Connects to a stream. Panics if the server does not want that.
    pub fn connect(url: &str) -> Self {
        Self::connect_through(url, |_| None)
    }

    /// The same, with something between: gets the server's address, gives its own.
    pub fn connect_through(url: &str, between: impl FnOnce(SocketAddr) -> Option<SocketAddr>) -> Self {
        let offer = Offer::new();
        let answer = post(url, &offer.sdp, &[]);
        assert_eq!(answer.status, 201, "{}", answer.text());
        let through = between(candidate(&answer.text()));
        offer.accept(url, &answer, through)
    }

    /// Goes on until something holds. Panics if it does not in time.
    pub fn until(&mut self, what: &str, limit: Duration, mut done: impl FnMut(&mut Self) -> bool) {
        let end = Instant::now() + limit;
        while !done(self) {
            assert!(
                Instant::now() < end,
                "{what}: not within {limit:?}; connected {:?}, {} pictures, {} of sound",
                self.connected.is_some(),
                self.video.len(),
                self.sound.len()
            );
            self.step();
        }
    }

    /// Leaves, as players do.
    pub fn leave(self) {
        assert_eq!(super::http::send("DELETE", &self.session, &[], b"").status, 200);
    }

    /// Goes into another network: another socket, and ICE anew by the session's address. Gives the server's answer to that.
    pub fn move_elsewhere(&mut self) -> Answer {
        self.socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let here = Candidate::host(self.socket.local_addr().unwrap(), "udp").unwrap();
        let mut change = self.rtc.sdp_api();
        change.ice_restart(false);
        let (offer, pending) = change.apply().unwrap();
        let sdp = offer.to_sdp_string();
        let line = |text: &str, name: &str| {
            text.lines()
                .find(|line| line.starts_with(name))
                .unwrap_or_else(|| panic!("no {name} in {text}"))
                .to_owned()
        };
        let names = ["a=ice-ufrag:", "a=ice-pwd:"];
        let fragment = names.map(|name| line(&sdp, name)).join("\r\n") + "\r\n";
        let headers = [("content-type", "application/trickle-ice-sdpfrag"), ("if-match", "*")];
        let answer = super::http::send("PATCH", &self.session, &headers, fragment.as_bytes());
        assert_eq!(answer.status, 200, "{}", answer.text());
        for name in names {
            // The name also stands behind candidates.
            let value = |text: &str| line(text, name)[name.len()..].to_owned();
            self.answer = self.answer.replace(&value(&self.answer), &value(&answer.text()));
        }
        let accepted = SdpAnswer::from_sdp_string(&self.answer).unwrap();
        self.rtc.sdp_api().accept_answer(pending, accepted).unwrap();
        // Those of before are gone by now.
        self.rtc.add_local_candidate(here);
        answer
    }

    /// Asks for a keyframe.
    pub fn ask_for_keyframe(&mut self) {
        let mut writer = self.rtc.writer(self.video_mid).unwrap();
        writer.request_keyframe(None, str0m::media::KeyframeRequestKind::Pli).unwrap();
    }

    /// Keeps the session alive and counts packets and bytes of media, without looking into them.
    pub fn count_until(&mut self, end: Instant) -> (u64, u64) {
        let (mut packets, mut bytes) = (0, 0);
        let mut buffer = vec![0; 2000];
        let mut looked = Instant::now();
        self.socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
        while Instant::now() < end {
            let received = self.socket.recv_from(&mut buffer);
            if let Ok((length, _)) = received
                && (128..192).contains(&buffer[0])
            {
                packets += 1;
                bytes += length as u64;
            } else if let Ok((length, source)) = received {
                let destination = self.socket.local_addr().unwrap();
                let receive = Receive::new(Protocol::Udp, source, destination, &buffer[..length]).unwrap();
                self.rtc.handle_input(Input::Receive(Instant::now(), receive)).unwrap();
            }
            if looked.elapsed() > Duration::from_millis(100) {
                looked = Instant::now();
                self.rtc.handle_input(Input::Timeout(looked)).unwrap();
                loop {
                    match self.rtc.poll_output().unwrap() {
                        Output::Timeout(_) => break,
                        Output::Transmit(transmit) => {
                            let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                        }
                        Output::Event(_) => {}
                    }
                }
            }
        }
        (packets, bytes)
    }

    fn step(&mut self) {
        let mut wants_keyframe = false;
        let wait = loop {
            match self.rtc.poll_output().unwrap() {
                Output::Timeout(at) => break at,
                Output::Transmit(transmit) => {
                    // Nobody may be there any more.
                    let _ = self.socket.send_to(&transmit.contents, transmit.destination);
                }
                Output::Event(Event::Connected) => self.connected = Some(Instant::now()),
                Output::Event(Event::Closed) => self.closed = true,
                Output::Event(Event::MediaData(data)) => {
                    let received = Received {
                        at: Instant::now(),
                        time: data.time.numer(),
                        contiguous: data.contiguous,
                        data: data.data.clone(),
                    };
                    if data.mid != self.video_mid {
                        self.sound.push(received);
                    } else if !self.video.is_empty()
                        || data.params.spec().codec != Codec::H264
                        || received.is_idr()
                    {
                        self.video.push(received);
                    } else {
                        wants_keyframe = true;
                    }
                }
                Output::Event(Event::ChannelData(data)) => {
                    self.told.push(String::from_utf8_lossy(&data.data).into_owned());
                }
                Output::Event(_) => {}
            }
        };
        let now = Instant::now();
        // As browsers do whose first picture is lost.
        if wants_keyframe && self.asked.is_none_or(|asked| now - asked > Duration::from_millis(300)) {
            self.asked = Some(now);
            self.ask_for_keyframe();
        }
        receive(&mut self.rtc, &self.socket, wait);
    }

    /// Writes the pictures as H.264 and reads their counters.
    pub fn counters(&self) -> Vec<u32> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("received.h264");
        let data: Vec<u8> = self.video.iter().flat_map(|received| received.data.iter().copied()).collect();
        std::fs::write(&file, data).unwrap();
        super::media::counters(&file)
    }
}
