//! The pieces of the hot path: hub fan-out, timestamps and all; the fragmenter; RTSP to access units; access units to
//! RTP and back; reading a file's
//! structure; the index.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use std::io::Cursor;
use std::sync::Arc;
use stream_manager_core::config::HlsSettings;
use stream_manager_core::fmp4::{Fragmenter, FragmenterOptions, scan};
use stream_manager_core::frame::{
    CodecParameters, Frame, MediaTime, Track, TrackId, VideoCodec, VideoParameters, WallTime,
};
use stream_manager_core::hls::{LiveReader, MpdOptions, Packager, Variant, manifest};
use stream_manager_core::hub::{Hub, HubItem, RawFrame, ReaderOptions};
use stream_manager_core::rtp::format::{describe, parse};
use stream_manager_core::rtp::{Packetizer, PacketizerOptions, Receiver};
use stream_manager_core::sink::Sink;
use stream_manager_core::source::{RtspSource, Source};
use stream_manager_core::storage::index::{Catalog, Change, NewSegment, SegmentEnd, SegmentId, TimeRange};
use stream_manager_core::storage::segment_name;
use stream_manager_tests::replay::{Loop, Mischief, ReplayServer};
use tokio_util::sync::CancellationToken;

const FRAMES: i64 = 250;

fn raw(number: i64, data: &Bytes) -> RawFrame {
    RawFrame::new(0, MediaTime::from_ticks(number * 3600, 90_000), data.clone()).keyframe(number % 25 == 0)
}

fn hub() -> Hub {
    let hub = Hub::default();
    hub.writer().set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp8, 1920, 1080))]);
    hub
}

fn fan_out(c: &mut Criterion) {
    let data = Bytes::from(vec![7u8; 20_000]);
    let mut group = c.benchmark_group("hub");
    group.throughput(Throughput::Elements(FRAMES as u64));
    for readers in [0, 1, 10, 100] {
        group.bench_function(format!("250 frames to {readers} readers"), |b| {
            let hub = hub();
            let writer = hub.writer();
            let mut readers: Vec<_> =
                (0..readers).map(|_| hub.subscribe("bench", ReaderOptions::default())).collect();
            let mut number = 0;
            b.iter(|| {
                for _ in 0..FRAMES {
                    writer.push(raw(number, &data)).unwrap();
                    number += 1;
                }
                readers.iter_mut().for_each(|r| while r.try_next().is_some() {});
            });
        });
    }
    group.finish();
}

fn frames() -> (Hub, Vec<Frame>) {
    let hub = hub();
    let mut reader = hub.subscribe("bench", ReaderOptions::default());
    let data = Bytes::from(vec![7u8; 20_000]);
    (0..FRAMES).for_each(|n| hub.writer().push(raw(n, &data)).unwrap());
    let frames = std::iter::from_fn(|| reader.try_next())
        .filter_map(|item| if let HubItem::Frame(frame) = item { Some(frame) } else { None })
        .collect();
    (hub, frames)
}

fn fragmenter(c: &mut Criterion) {
    let (hub, frames) = frames();
    let mut group = c.benchmark_group("fmp4");
    group.throughput(Throughput::Elements(FRAMES as u64));
    group.bench_function("250 frames to parts of 1 s", |b| {
        b.iter(|| {
            let mut fragmenter = Fragmenter::new(&hub.tracks(), FragmenterOptions::default()).unwrap();
            let parts = frames.iter().filter_map(|f| fragmenter.push(f.clone()).unwrap()).count();
            assert_eq!(parts, 9);
        });
    });
    group.finish();
}

fn depacketize(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let media = Arc::new(Loop::encode(1280, 720, 25, 25, 4000, 4, false));
    let server =
        runtime.block_on(ReplayServer::start(media, Mischief { unpaced: true, ..Default::default() }));
    let mut group = c.benchmark_group("rtsp");
    group.throughput(Throughput::Elements(2000));
    group.sample_size(10);
    group.bench_function("connect and 2000 frames over TCP into the hub", |b| {
        b.iter(|| {
            runtime.block_on(async {
                let hub = Hub::default();
                let (writer, cancel) = (hub.writer(), CancellationToken::new());
                let mut source = RtspSource::new(&server.url("x")).unwrap();
                let watch = async {
                    while hub.stats().frames < 2000 {
                        tokio::task::yield_now().await;
                    }
                };
                tokio::select! {
                    result = source.run(&writer, cancel.clone()) => panic!("{result:?}"),
                    () = watch => {}
                }
            });
        });
    });
    group.finish();
}

/// A frame of a 4 Mbit/s camera to packets, and back.
fn rtp(c: &mut Criterion) {
    let avcc = [
        0x01, 0x64, 0x00, 0x1e, 0xff, 0xe1, 0x00, 0x1a, 0x67, 0x64, 0x00, 0x1e, 0xac, 0xd9, 0x40, 0xa0, 0x2f,
        0xf9, 0x70, 0x11, 0x00, 0x00, 0x03, 0x00, 0x01, 0x00, 0x00, 0x03, 0x00, 0x32, 0x0f, 0x16, 0x2d, 0x96,
        0x01, 0x00, 0x06, 0x68, 0xeb, 0xe3, 0xcb, 0x22, 0xc0, 0xfd, 0xf8, 0xf8, 0x00,
    ];
    let parameters = VideoParameters::h264(Bytes::copy_from_slice(&avcc)).unwrap();
    let parameters = Arc::new(CodecParameters::Video(parameters));
    let mut data = 20_000u32.to_be_bytes().to_vec();
    data.push(0x41);
    data.extend((1..20_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 | 1));
    let frame = Frame {
        track: TrackId(0),
        parameters: parameters.clone(),
        pts: MediaTime::ZERO,
        dts: MediaTime::ZERO,
        wall_clock: WallTime::from_unix_nanos(0),
        ntp: None,
        keyframe: false,
        data: data.into(),
    };
    let mut packetizer = Packetizer::new(0, &parameters, PacketizerOptions::default());
    let mut group = c.benchmark_group("rtp");
    group.throughput(Throughput::Elements(1));
    group.bench_function("a frame of 20 kB to packets", |b| {
        b.iter(|| packetizer.packetize(&frame, false).unwrap().bytes());
    });
    let packets = packetizer.packetize(&frame, false).unwrap();
    group.bench_function("the pieces of such packets for one write", |b| b.iter(|| packets.slices(0).len()));
    let track = Track { id: TrackId(0), parameters };
    let sdp = describe(&[track], std::net::Ipv4Addr::LOCALHOST.into(), "bench");
    let mut receiver = Receiver::new(&parse(sdp.as_bytes()).unwrap(), 0).unwrap();
    let writer = Hub::default().writer();
    group.bench_function("a frame of 20 kB from packets into the hub", |b| {
        b.iter(|| {
            let packets = packetizer.packetize(&frame, false).unwrap();
            for index in 0..packets.len() {
                let mut slices = Vec::new();
                packets.datagram(index, &mut slices);
                let data: Vec<u8> = slices.iter().flat_map(|s| s.iter().copied()).collect();
                receiver.rtp(0, &data.into(), &writer).unwrap();
            }
        });
    });
    group.finish();
}

fn repair(c: &mut Criterion) {
    let (hub, frames) = frames();
    let mut fragmenter = Fragmenter::new(&hub.tracks(), FragmenterOptions::default()).unwrap();
    let mut file = Vec::new();
    for part in frames.iter().filter_map(|f| fragmenter.push(f.clone()).unwrap()) {
        part.chunks().for_each(|chunk| file.extend_from_slice(chunk));
    }
    let mut group = c.benchmark_group("repair");
    group.throughput(Throughput::Elements(9));
    group.bench_function("the structure of 9 parts", |b| {
        b.iter(|| assert_eq!(scan(&mut Cursor::new(&file)).unwrap().parts.len(), 9));
    });
    group.finish();
}

fn index(c: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let mut catalog = Catalog::open(folder.path()).unwrap();
    let minute = 60_000_000_000;
    let mut id = 0;
    let mut changes = |streams: u64| -> Vec<Change> {
        (0..streams)
            .map(|stream| {
                id += 1;
                let start = WallTime::from_unix_nanos((id / streams) as i64 * minute);
                let segment = NewSegment {
                    id: SegmentId(id),
                    stream: format!("cam-{stream}").into(),
                    start,
                    media_start: MediaTime::ZERO,
                    folder: format!("/video/cam-{stream}").into(),
                    name: segment_name(start, "mp4"),
                    format: "fmp4".into(),
                    tracks: "[]".into(),
                    continues: true,
                    lost_frames: 0,
                };
                let end = SegmentEnd { duration_nanos: minute, bytes: 1, ..Default::default() };
                Change::Finish { segment, end }
            })
            .collect()
    };
    (0..1440).for_each(|_| catalog.apply(&changes(10)).unwrap());
    let mut group = c.benchmark_group("index");
    group.bench_function("a day of one camera, joined", |b| {
        b.iter(|| assert_eq!(catalog.recordings("cam-3", TimeRange::ALL, 100).unwrap().len(), 1));
    });
    group.bench_function("100 segments finished", |b| b.iter(|| catalog.apply(&changes(100)).unwrap()));
    group.finish();
}

/// From a decoded picture to a model's input, and from its output to objects.
fn inference(c: &mut Criterion) {
    use stream_manager_core::config::{Layout, ModelSpec};
    use stream_manager_core::inference::{
        Candidate, ColorSpace, Matrix, ModelIo, ModelPlan, Picture, PixelFormat, Preprocessor, Region,
        TensorInfo, suppress,
    };
    let colors = ColorSpace { matrix: Matrix::Bt709, full_range: false };
    let io = ModelIo {
        inputs: vec![TensorInfo::f32("images", &[1, 3, 416, 416])],
        outputs: vec![TensorInfo::f32("output", &[1, 3549, 85])],
        ..ModelIo::default()
    };
    let plan = ModelPlan::new(&ModelSpec::new("x").layout(Layout::YoloX), &io).unwrap();
    let mut group = c.benchmark_group("inference");
    for (name, format) in [("NV12", PixelFormat::Nv12(colors)), ("I420", PixelFormat::I420(colors))] {
        let bytes = (0..1920 * 1080 * 3 / 2).map(|i: u32| (i % 251) as u8).collect();
        let picture = Picture::owned(1920, 1080, format, bytes).unwrap();
        let mut preprocessor = Preprocessor::default();
        let mut input = Preprocessor::tensor(&plan.input, 1);
        group.bench_function(format!("1080p {name} to 416x416"), |b| {
            b.iter(|| preprocessor.fill(&picture, &plan.input, &mut input, 0).unwrap());
        });
    }
    let candidates: Vec<Candidate> = (0..500u32)
        .map(|i| {
            let (x, y) = ((i * 37 % 380) as f32, (i * 53 % 380) as f32);
            let score = (i * 17 % 100) as f32 / 100.0;
            Candidate { class: i % 5, score, region: Region::new(x, y, x + 36.0, y + 36.0) }
        })
        .collect();
    group.bench_function("500 candidates suppressed", |b| b.iter(|| suppress(candidates.clone(), 0.5, 100)));
    group.finish();
}

/// What players get: frames into parts and segments, an MPD, a part for one reader of `live.mp4`.
fn players(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let hub = Hub::default();
    let writer = hub.writer();
    writer.set_tracks([CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 1920, 1080))]);
    let settings = HlsSettings { always: true, ..HlsSettings::default() };
    let (packager, mut sink) = Packager::new(settings, "cam".into());
    let reader = hub.subscribe("hls", ReaderOptions::default());
    runtime.spawn(async move { sink.run(reader, CancellationToken::new()).await });
    let data = Bytes::from(vec![7u8; 20_000]);
    let mut number = 0;
    let mut second = || {
        for _ in 0..25 {
            writer.push(raw(number, &data)).unwrap();
            number += 1;
        }
        runtime.block_on(async {
            while hub.consumers().iter().any(|(_, stats)| stats.queued_frames > 0) {
                tokio::task::yield_now().await;
            }
        });
    };
    // The first frames only start it.
    for _ in 0..40 {
        second();
        runtime.block_on(tokio::task::yield_now());
    }
    let mut group = c.benchmark_group("players");
    group.throughput(Throughput::Elements(25));
    group.bench_function("25 frames into parts and segments", |b| b.iter(&mut second));
    group.throughput(Throughput::Elements(1));
    let presentation = packager.now().unwrap();
    let variants = [Variant { presentation: presentation.clone(), prefix: String::new() }];
    group.bench_function("an MPD", |b| b.iter(|| manifest(&variants, &MpdOptions::default())));
    let mut reader = LiveReader::new(presentation);
    let item = reader.take().unwrap().remove(0);
    group.bench_function("a part for one reader of live.mp4", |b| b.iter(|| reader.pieces(&item).unwrap()));
    group.finish();
}

criterion_group!(benches, fan_out, inference, fragmenter, players, depacketize, rtp, repair, index);
criterion_main!(benches);
