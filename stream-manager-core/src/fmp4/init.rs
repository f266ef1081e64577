//! The initialization segment: `ftyp` and `moov` for a set of tracks.

use super::Fmp4Error;
use crate::frame::{AudioCodec, AudioParameters, CodecParameters, VideoCodec, VideoParameters, WallTime};
use bytes::Bytes;
use mp4_atom as mp4;
use mp4_atom::{Atom, Encode, FourCC};

/// The movie's own timescale, ticks per second.
pub(super) const MOVIE_TIMESCALE: u32 = 1000;

/// Whether MP4 can store frames with these parameters. Timed metadata is left out.
pub fn can_hold(parameters: &CodecParameters) -> bool {
    !matches!(parameters, CodecParameters::Data(_))
}

/// One track of an initialization segment.
pub(super) struct InitTrack<'a> {
    pub(super) id: u32,
    pub(super) timescale: u32,
    pub(super) parameters: &'a CodecParameters,
    /// Where presentation begins on the track's own timeline (edit list).
    pub(super) media_time: u64,
}

/// Sixteen bytes to overwrite once the segment's length is known, so that players show it at once. Until
/// then a `free` box holds the place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationPatch {
    offset: u64,
}

impl DurationPatch {
    pub(super) fn at(offset: u64) -> Self {
        Self { offset }
    }

    /// Where to write, from the start of the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// What to write: type, version, flags and duration of a `mehd` box (ISO/IEC 14496-12 section 8.8.2).
    pub fn bytes(&self, duration: std::time::Duration) -> [u8; 16] {
        let mut bytes = *b"mehd\x01\0\0\0\0\0\0\0\0\0\0\0";
        let ticks = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        bytes[8..].copy_from_slice(&ticks.to_be_bytes());
        bytes
    }
}

/// A track of an [`init_segment`].
#[derive(Clone, Debug)]
pub struct CmafTrack {
    /// `track_ID`, as its fragments have it.
    pub id: u32,
    /// How its frames are encoded.
    pub parameters: std::sync::Arc<CodecParameters>,
}

/// The initialization segment for fragments of these tracks that [`Fragmenter::cmaf`](super::Fragmenter::cmaf) makes.
///
/// # Errors
/// If a track cannot be stored, or its decoder configuration is not usable.
pub fn init_segment(tracks: &[CmafTrack]) -> Result<Bytes, Fmp4Error> {
    if tracks.is_empty() || !tracks.iter().all(|t| can_hold(&t.parameters)) {
        return Err(Fmp4Error::NoTracks { tracks: tracks.len() });
    }
    let tracks: Vec<InitTrack<'_>> = tracks
        .iter()
        .map(|t| InitTrack {
            id: t.id,
            timescale: t.parameters.clock_rate(),
            parameters: &t.parameters,
            // Edit lists are not for streams: their times are the same in all tracks as they are.
            media_time: 0,
        })
        .collect();
    // The time of creation is left out: the same parameters make the same bytes, which caches like.
    write_init(&tracks, None, &[]).map(|(bytes, _)| bytes)
}

/// Writes the initialization segment. One without a start has no end that could be written into it either.
pub(super) fn write_init(
    tracks: &[InitTrack<'_>],
    start: Option<WallTime>,
    identity: &[u8],
) -> Result<(Bytes, Option<DurationPatch>), Fmp4Error> {
    let created = start.map_or(0, WallTime::to_mp4_secs);
    let mut traks = Vec::with_capacity(tracks.len());
    let mut law_codes = Vec::new();
    for track in tracks {
        let (trak, law) = make_trak(track, created)?;
        traks.push(trak);
        law_codes.extend(law);
    }
    let moov = mp4::Moov {
        mvhd: mp4::Mvhd {
            creation_time: created,
            modification_time: created,
            timescale: MOVIE_TIMESCALE,
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: tracks.iter().map(|t| t.id).max().unwrap_or(0) + 1,
            ..Default::default()
        },
        mvex: Some(mp4::Mvex {
            mehd: start.map(|_| mp4::Mehd { fragment_duration: 0 }),
            trex: tracks
                .iter()
                .map(|t| mp4::Trex {
                    track_id: t.id,
                    default_sample_description_index: 1,
                    ..Default::default()
                })
                .collect(),
        }),
        trak: traks,
        ..Default::default()
    };
    let mut out = Vec::with_capacity(1024);
    mp4::Ftyp {
        major_brand: FourCC::new(b"iso6"),
        minor_version: 0,
        compatible_brands: [b"iso6", b"iso5", b"cmfc", b"mp42"].map(FourCC::new).to_vec(),
    }
    .encode(&mut out)?;
    moov.encode(&mut out)?;
    for law in law_codes {
        // mp4-atom has no entry for G.711; the fields are those of `twos`, only the name differs.
        replace_first(&mut out, b"twos", law);
    }
    let patch = find(&out, b"mehd").map(|offset| {
        out[offset..offset + 4].copy_from_slice(b"free");
        DurationPatch { offset: offset as u64 }
    });
    out.extend_from_slice(identity);
    Ok((out.into(), patch))
}

fn find(data: &[u8], what: &[u8; 4]) -> Option<usize> {
    data.windows(4).rposition(|w| w == what)
}

fn replace_first(data: &mut [u8], what: &[u8; 4], with: &[u8; 4]) {
    if let Some(at) = data.windows(4).position(|w| w == what) {
        data[at..at + 4].copy_from_slice(with);
    }
}

type Law = Option<&'static [u8; 4]>;

fn make_trak(track: &InitTrack<'_>, created: u64) -> Result<(mp4::Trak, Law), Fmp4Error> {
    let video = track.parameters.video();
    let (entry, law) = match track.parameters {
        CodecParameters::Video(p) => (video_entry(p)?, None),
        CodecParameters::Audio(p) => audio_entry(p),
        CodecParameters::Data(_) => return Err(Fmp4Error::NoTracks { tracks: 1 }),
    };
    let (handler, name) = if video.is_some() { (b"vide", "VideoHandler") } else { (b"soun", "SoundHandler") };
    let trak = mp4::Trak {
        tkhd: mp4::Tkhd {
            creation_time: created,
            modification_time: created,
            track_id: track.id,
            enabled: true,
            in_movie: true,
            volume: if video.is_some() { 0.into() } else { 1.into() },
            width: clamp16(video.map_or(0, |v| v.width)).into(),
            height: clamp16(video.map_or(0, |v| v.height)).into(),
            ..Default::default()
        },
        edts: (track.media_time > 0).then(|| mp4::Edts {
            elst: Some(mp4::Elst {
                entries: vec![mp4::ElstEntry {
                    segment_duration: 0,
                    media_time: Some(track.media_time),
                    media_rate: 1.into(),
                }],
            }),
        }),
        mdia: mp4::Mdia {
            mdhd: mp4::Mdhd {
                creation_time: created,
                modification_time: created,
                timescale: track.timescale,
                language: "und".into(),
                ..Default::default()
            },
            hdlr: mp4::Hdlr { handler: FourCC::new(handler), name: name.into() },
            minf: mp4::Minf {
                vmhd: video.map(|_| mp4::Vmhd::default()),
                smhd: video.is_none().then(mp4::Smhd::default),
                dinf: mp4::Dinf {
                    dref: mp4::Dref { entries: vec![mp4::Url { location: String::new() }.into()] },
                },
                stbl: mp4::Stbl {
                    stsd: mp4::Stsd { codecs: vec![entry] },
                    // Required to be there, empty in a fragmented file.
                    stco: Some(mp4::Stco::default()),
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        ..Default::default()
    };
    Ok((trak, law))
}

fn clamp16(value: u32) -> u16 {
    u16::try_from(value).unwrap_or(u16::MAX)
}

fn video_entry(p: &VideoParameters) -> Result<mp4::Codec, Fmp4Error> {
    let visual = mp4::Visual {
        data_reference_index: 1,
        width: clamp16(p.width),
        height: clamp16(p.height),
        ..Default::default()
    };
    let failed = |source| Fmp4Error::Configuration { codec: crate::frame::Codec::Video(p.codec), source };
    let mut extra = &p.extra_data[..];
    Ok(match p.codec {
        VideoCodec::H264 => {
            let avcc = mp4::Avcc::decode_body(&mut extra).map_err(failed)?;
            mp4::Avc1 { visual, avcc, ..Default::default() }.into()
        }
        VideoCodec::H265 => {
            let hvcc = mp4::Hvcc::decode_body(&mut extra).map_err(failed)?;
            mp4::Hvc1 { visual, hvcc, ..Default::default() }.into()
        }
        VideoCodec::Av1 => {
            let av1c = mp4::Av1c::decode_body(&mut extra).map_err(failed)?;
            mp4::Av01 { visual, av1c, ..Default::default() }.into()
        }
        VideoCodec::Vp8 => mp4::Vp08 { visual, vpcc: vpcc(), ..Default::default() }.into(),
        VideoCodec::Vp9 => mp4::Vp09 { visual, vpcc: vpcc(), ..Default::default() }.into(),
        VideoCodec::Mjpeg => mp4::Jpeg { visual, ..Default::default() }.into(),
    })
}

/// 8 bit 4:2:0, what cameras and browsers send.
fn vpcc() -> mp4::VpcC {
    mp4::VpcC {
        level: 10,
        bit_depth: 8,
        chroma_subsampling: 1,
        color_primaries: 2,
        transfer_characteristics: 2,
        matrix_coefficients: 2,
        ..Default::default()
    }
}

fn audio_entry(p: &AudioParameters) -> (mp4::Codec, Law) {
    let audio = mp4::Audio {
        data_reference_index: 1,
        channel_count: p.channels,
        sample_size: 16,
        // 16.16 fixed point cannot hold more than 65,535 Hz; the decoder configuration says it then.
        sample_rate: u16::try_from(p.sample_rate).unwrap_or(0).into(),
    };
    let twos = |audio| mp4::Codec::Twos(mp4::Twos { audio, pcmc: None, chnl: None, btrt: None });
    match p.codec {
        AudioCodec::Aac => {
            let raw = p.extra_data.to_vec();
            let specific = mp4::esds::DecoderSpecific { raw, ..Default::default() };
            (mp4a(audio, 0x40, Some(specific)), None)
        }
        AudioCodec::Mp3 => (mp4a(audio, 0x6b, None), None),
        AudioCodec::Opus => {
            let dops = mp4::Dops {
                output_channel_count: u8::try_from(p.channels).unwrap_or(2),
                // RFC 7845 section 5.1: byte 10 on of an OpusHead.
                pre_skip: p.extra_data.get(10..12).map_or(0, |b| u16::from_le_bytes([b[0], b[1]])),
                input_sample_rate: p.sample_rate,
                output_gain: 0,
                channel_mapping: None,
            };
            (mp4::Opus { audio, dops, btrt: None }.into(), None)
        }
        AudioCodec::Ac3 => (mp4::Ac3 { audio, dac3: dac3(&p.extra_data) }.into(), None),
        AudioCodec::L16 => (twos(audio), None),
        AudioCodec::Pcma => (twos(audio), Some(b"alaw")),
        AudioCodec::Pcmu => (twos(audio), Some(b"ulaw")),
    }
}

fn mp4a(
    audio: mp4::Audio,
    object_type_indication: u8,
    dec_specific: Option<mp4::esds::DecoderSpecific>,
) -> mp4::Codec {
    mp4::Mp4a {
        audio,
        esds: mp4::Esds {
            es_desc: mp4::esds::EsDescriptor {
                es_id: 1,
                dec_config: mp4::esds::DecoderConfig {
                    object_type_indication,
                    stream_type: 5, // audio, ISO/IEC 14496-1 table 6
                    dec_specific,
                    ..Default::default()
                },
                ..Default::default()
            },
        },
        btrt: None,
        taic: None,
    }
    .into()
}

/// The fields of `dac3` from the head of an AC-3 sync frame (ETSI TS 102 366 sections 4.3 and F.4).
fn dac3(sync_frame: &[u8]) -> mp4::Ac3SpecificBox {
    let byte = |at: usize| sync_frame.get(at).copied().unwrap_or(0);
    let acmod = byte(6) >> 5;
    // lfeon follows acmod and up to three two-bit mix levels.
    let mut skip = 3;
    skip += if acmod & 1 != 0 && acmod != 1 { 2 } else { 0 };
    skip += if acmod & 4 != 0 { 2 } else { 0 };
    skip += if acmod == 2 { 2 } else { 0 };
    let tail = u16::from_be_bytes([byte(6), byte(7)]);
    mp4::Ac3SpecificBox {
        fscod: byte(4) >> 6,
        bsid: byte(5) >> 3,
        bsmod: byte(5) & 7,
        acmod,
        lfeon: tail >> (15 - skip) & 1 == 1,
        bit_rate_code: (byte(4) & 0x3f) >> 1,
    }
}
