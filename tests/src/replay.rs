//! A small RTSP server (TCP interleaved only) that plays one encoded loop to any number of clients.
//!
//! The loop is encoded once; each session only patches sequence numbers and timestamps, so hundreds of
//! sessions cost little. What it does on top, no good server does: start its clock anywhere, let it jump,
//! send garbage, cut the connection.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

/// Ticks per second of the RTP clock.
const RATE: u32 = 90_000;

/// One encoded loop of video.
#[derive(Debug)]
pub struct Loop {
    sdp: String,
    /// For every frame its RTP packets, each with the interleaved header in front.
    frames: Vec<Vec<u8>>,
    /// Where each packet begins within its frame.
    offsets: Vec<Vec<usize>>,
    fps: u32,
}

impl Loop {
    /// Encodes `seconds` of a test picture as H.264. With `counted`, frames carry the counter.
    pub fn encode(
        width: u32,
        height: u32,
        fps: u32,
        gop: u32,
        kbit: u32,
        seconds: u32,
        counted: bool,
    ) -> Self {
        let (frames, pattern) = (fps * seconds, if counted { "black" } else { "snow" });
        let source = format!("videotestsrc num-buffers={frames} pattern={pattern}");
        let made = Self::made_of(&source, [width, height, fps], gop, kbit, counted);
        assert_eq!(made.frames.len(), frames as usize);
        made
    }

    /// Encodes a video, all of it, scaled to this size and rate, as H.264.
    pub fn of_video(path: &Path, width: u32, height: u32, fps: u32, gop: u32, kbit: u32) -> Self {
        let source = format!(
            "filesrc location=\"{}\" ! decodebin ! videoconvert ! videoscale ! videorate",
            path.display()
        );
        Self::made_of(&source, [width, height, fps], gop, kbit, false)
    }

    fn made_of(source: &str, [width, height, fps]: [u32; 3], gop: u32, kbit: u32, counted: bool) -> Self {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(&format!(
            "{source} ! video/x-raw,format=I420,width={width},height={height},framerate={fps}/1 \
             ! identity name=stamp ! x264enc tune=zerolatency speed-preset=superfast key-int-max={gop} bitrate={kbit} \
             vbv-buf-capacity=1000 option-string=scenecut=0:nal-hrd=cbr:force-cfr=1 ! h264parse config-interval=-1 \
             ! rtph264pay name=pay mtu=1400 pt=96 config-interval=-1 ! appsink name=sink sync=false"
        ))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
        if counted {
            let next = std::sync::atomic::AtomicU32::new(0);
            pipeline.by_name("stamp").unwrap().static_pad("src").unwrap().add_probe(
                gst::PadProbeType::BUFFER,
                move |pad, info| {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    if let (Some(buffer), Some(caps)) = (info.buffer_mut(), pad.current_caps()) {
                        crate::camera::stamp_counter(buffer.make_mut(), &caps, number);
                    }
                    gst::PadProbeReturn::Ok
                },
            );
        }
        let sink = pipeline.by_name("sink").unwrap().downcast::<gst_app::AppSink>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let mut made = Self { sdp: String::new(), frames: Vec::new(), offsets: Vec::new(), fps };
        let mut last = None;
        while let Ok(sample) = sink.pull_sample() {
            let packets: Vec<gst::Buffer> = match (sample.buffer_list(), sample.buffer()) {
                (Some(list), _) => list.iter_owned().collect(),
                (None, Some(buffer)) => vec![buffer.to_owned()],
                _ => continue,
            };
            for packet in packets {
                let map = packet.map_readable().unwrap();
                let timestamp = u32::from_be_bytes(map[4..8].try_into().unwrap());
                if last != Some(timestamp) {
                    last = Some(timestamp);
                    made.frames.push(Vec::new());
                    made.offsets.push(Vec::new());
                }
                let (frame, offsets) = (made.frames.last_mut().unwrap(), made.offsets.last_mut().unwrap());
                offsets.push(frame.len());
                frame.extend_from_slice(&[b'$', 0]);
                frame.extend_from_slice(&(map.len() as u16).to_be_bytes());
                frame.extend_from_slice(&map);
            }
        }
        assert!(!made.frames.is_empty(), "there is nothing in {source}");
        let caps = pipeline.by_name("pay").unwrap().static_pad("src").unwrap().current_caps().unwrap();
        let caps = caps.structure(0).unwrap();
        let sets: String = caps.get("sprop-parameter-sets").unwrap();
        let profile: String = caps.get("profile-level-id").unwrap();
        made.sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=replay\r\nt=0 0\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
             a=fmtp:96 packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}\r\na=control:track1\r\n"
        );
        pipeline.set_state(gst::State::Null).unwrap();
        made
    }

    /// No media at all, only a description of some.
    pub fn described(sdp: &str) -> Self {
        let sdp = format!("v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=described\r\nt=0 0\r\na=control:*\r\n{sdp}");
        Self { sdp, frames: Vec::new(), offsets: Vec::new(), fps: 25 }
    }

    /// Frames in the loop.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Bits per second.
    pub fn bitrate(&self) -> f64 {
        let bytes: usize = self.frames.iter().map(Vec::len).sum();
        bytes as f64 * 8.0 * f64::from(self.fps) / self.frames.len() as f64
    }
}

/// What a session does that a good server does not.
#[derive(Clone, Debug, Default)]
pub struct Mischief {
    /// The first RTP timestamp.
    pub first_timestamp: u32,
    /// At this frame the clock jumps by this much.
    pub clock_jump: Option<(u64, i64)>,
    /// After this frame something that is no RTSP follows.
    pub garbage_after: Option<u64>,
    /// From this frame on nothing comes, and the connection stays.
    pub silent_from: Option<u64>,
    /// After this frame the connection is cut.
    pub cut_after: Option<u64>,
    /// Whether PLAY's answer lacks RTP-Info.
    pub no_rtp_info: bool,
    /// Frames are sent as fast as they are taken.
    pub unpaced: bool,
    /// In front of each frame a unit of user data says when it was sent; see [`read_stamp`].
    pub stamped: bool,
    /// Sessions begin at different times within this, as cameras do, and not all at once.
    pub spread: Duration,
    /// How long each answer takes: the line there and back, and the camera's thinking.
    pub answer_delay: Duration,
}

/// Serves a loop on a port of the loopback until it is dropped.
#[derive(Debug)]
pub struct ReplayServer {
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl ReplayServer {
    /// Starts it.
    pub async fn start(media: Arc<Loop>, mischief: Mischief) -> Self {
        Self::start_at(Ipv4Addr::LOCALHOST, media, mischief).await
    }

    /// The same at another address of the loopback, of which there are 16 million: another host.
    pub async fn start_at(ip: Ipv4Addr, media: Arc<Loop>, mischief: Mischief) -> Self {
        assert!(ip.is_loopback());
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let mut sessions = tokio::task::JoinSet::new();
            let mut number = 0u32;
            while let Ok((socket, _)) = listener.accept().await {
                number += 1;
                let (media, mischief) = (media.clone(), mischief.clone());
                // A session's end, however it comes, is its own affair.
                sessions.spawn(async move { drop(serve(socket, media, mischief, number).await) });
            }
        });
        Self { address, task }
    }

    /// Where it is reached; any path will do.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}/{path}", self.address)
    }
}

impl Drop for ReplayServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Request {
    method: String,
    url: String,
    cseq: String,
}

async fn read_request(reader: &mut BufReader<OwnedReadHalf>) -> std::io::Result<Option<Request>> {
    loop {
        let mut first = [0u8; 1];
        if reader.read(&mut first).await? == 0 {
            return Ok(None);
        }
        if first[0] == b'$' {
            let mut head = [0u8; 3];
            reader.read_exact(&mut head).await?;
            let mut body = vec![0; usize::from(u16::from_be_bytes([head[1], head[2]]))];
            reader.read_exact(&mut body).await?;
            continue;
        }
        let mut line = String::from(first[0] as char);
        reader.read_line(&mut line).await?;
        let mut words = line.split_whitespace();
        let (method, url) =
            (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
        let mut cseq = String::from("0");
        loop {
            let mut header = String::new();
            if reader.read_line(&mut header).await? == 0 {
                return Ok(None);
            }
            if header.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = header.split_once(':')
                && name.eq_ignore_ascii_case("cseq")
            {
                value.trim().clone_into(&mut cseq);
            }
        }
        return Ok(Some(Request { method, url, cseq }));
    }
}

async fn serve(socket: TcpStream, media: Arc<Loop>, mischief: Mischief, number: u32) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let (reader, mut writer) = socket.into_split();
    let mut reader = BufReader::new(reader);
    while let Some(request) = read_request(&mut reader).await? {
        let cseq = &request.cseq;
        let session = format!("Session: {number};timeout=60\r\n");
        let answer = match request.method.as_str() {
            "OPTIONS" => format!(
                "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nPublic: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN, GET_PARAMETER\r\n\r\n"
            ),
            "DESCRIBE" => format!(
                "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\nContent-Type: application/sdp\r\nContent-Base: {}/\r\nContent-Length: {}\r\n\r\n{}",
                request.url,
                media.sdp.len(),
                media.sdp
            ),
            "SETUP" => format!(
                "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{session}Transport: RTP/AVP/TCP;unicast;interleaved=0-1;ssrc=0000CAFE\r\n\r\n"
            ),
            "PLAY" if mischief.no_rtp_info => format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{session}\r\n"),
            "PLAY" => format!(
                "RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{session}RTP-Info: url={}/track1;seq=1;rtptime={}\r\n\r\n",
                request.url.trim_end_matches('/'),
                mischief.first_timestamp
            ),
            "TEARDOWN" => {
                writer.write_all(format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n\r\n").as_bytes()).await?;
                return Ok(());
            }
            _ => format!("RTSP/1.0 200 OK\r\nCSeq: {cseq}\r\n{session}\r\n"),
        };
        tokio::time::sleep(mischief.answer_delay).await;
        writer.write_all(answer.as_bytes()).await?;
        if request.method == "PLAY" {
            return play(reader, writer, media, mischief, number).await;
        }
    }
    Ok(())
}

/// What a stamp is recognized by.
const STAMP: &[u8; 16] = b"sent at monoton:";

/// A packet with one SEI unit (ITU-T H.264 section D.1.7) that tells the time in hexadecimal digits.
fn stamp() -> Vec<u8> {
    let digits = format!("{:016x}", monotonic_nanos());
    let unit = [&[0x06, 0x05, 32][..], STAMP, digits.as_bytes(), &[0x80]].concat();
    let mut packet = vec![b'$', 0];
    packet.extend_from_slice(&((unit.len() + 12) as u16).to_be_bytes());
    packet.extend_from_slice(&[0x80, 96, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend_from_slice(&unit);
    packet
}

/// Nanoseconds of a clock that all processes of this machine share.
pub fn monotonic_nanos() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// When a frame was sent, if this packet of it tells.
pub fn read_stamp(packet: &[u8]) -> Option<u64> {
    let head = &packet[..packet.len().min(400)];
    let at = head.windows(STAMP.len()).position(|w| w == STAMP)? + STAMP.len();
    u64::from_str_radix(std::str::from_utf8(head.get(at..at + 16)?).ok()?, 16).ok()
}

async fn play(
    mut reader: BufReader<OwnedReadHalf>,
    mut writer: OwnedWriteHalf,
    media: Arc<Loop>,
    mischief: Mischief,
    session: u32,
) -> std::io::Result<()> {
    let frame_time = Duration::from_secs(1) / media.fps;
    // Multiples of the golden ratio are spread evenly, however many there are.
    let start =
        tokio::time::Instant::now() + mischief.spread.mul_f64((f64::from(session) * 0.618_034).fract());
    let (mut sequence, mut jump) = (1u16, 0i64);
    for number in 0u64.. {
        if media.is_empty() {
            std::future::pending::<()>().await;
        }
        let due = if mischief.unpaced {
            start
        } else {
            start + frame_time * u32::try_from(number).unwrap_or(u32::MAX)
        };
        // Keepalives are answered between frames.
        loop {
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(due) => break,
                request = read_request(&mut reader) => {
                    let Some(request) = request? else { return Ok(()) };
                    writer.write_all(format!("RTSP/1.0 200 OK\r\nCSeq: {}\r\n\r\n", request.cseq).as_bytes()).await?;
                    if request.method == "TEARDOWN" {
                        return Ok(());
                    }
                }
            }
        }
        if let Some((at, by)) = mischief.clock_jump
            && at == number
        {
            jump += by;
        }
        let index = (number % media.frames.len() as u64) as usize;
        let ticks = number as i64 * i64::from(RATE / media.fps) + jump + i64::from(mischief.first_timestamp);
        let (front, at) = if mischief.stamped { (stamp(), 1) } else { (Vec::new(), 0) };
        let mut data = [front.as_slice(), &media.frames[index]].concat();
        let offsets = std::iter::repeat_n(0, at).chain(media.offsets[index].iter().map(|o| o + front.len()));
        for offset in offsets {
            let packet = &mut data[offset + 4..];
            packet[2..4].copy_from_slice(&sequence.to_be_bytes());
            packet[4..8].copy_from_slice(&(ticks as u32).to_be_bytes());
            packet[8..12].copy_from_slice(&0xcafe_u32.to_be_bytes());
            sequence = sequence.wrapping_add(1);
        }
        if mischief.silent_from == Some(number) {
            std::future::pending::<()>().await;
        }
        writer.write_all(&data).await?;
        if mischief.garbage_after == Some(number) {
            writer.write_all(&[0xde, 0xad, 0xbe, 0xef].repeat(300)).await?;
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        if mischief.cut_after == Some(number) {
            return Ok(());
        }
    }
    Ok(())
}
