//! From a file's sample entries back to codec parameters: what frames that are read from it are encoded with.

use super::join::FileHead;
use super::scan::{child, children, decode};
use crate::frame::{
    AudioCodec, AudioParameters, CodecParameters, ParametersError, VideoCodec, VideoParameters,
};
use bytes::Bytes;
use mp4_atom as mp4;

/// Fields of a `VisualSampleEntry` and of an `AudioSampleEntry` in front of their boxes, header included (ISO/IEC 14496-12
/// sections 12.1.3 and 12.2.3).
const VISUAL_BYTES: usize = 86;
const AUDIO_BYTES: usize = 36;

impl FileHead {
    /// How each track is encoded, by its `track_ID`. Tracks of codecs that the library does not know are left out.
    pub fn parameters(&self) -> Vec<(u32, CodecParameters)> {
        let entries = self.sample_entries();
        let of = |(id, timescale, stsd): (u32, u32, &[u8])| Some((id, read_entry(stsd, timescale)?));
        entries.into_iter().filter_map(of).collect()
    }
}

fn be16(data: &[u8], at: usize) -> Option<u16> {
    data.get(at..at + 2).map(|b| u16::from_be_bytes([b[0], b[1]]))
}

/// The first entry of an `stsd`.
fn read_entry(stsd: &[u8], timescale: u32) -> Option<CodecParameters> {
    let entry = stsd.get(8..)?;
    let kind = entry.get(4..8)?;
    let boxes = |from: usize, name: &[u8; 4]| {
        entry.get(from..).and_then(|rest| child(rest, name)).map(Bytes::copy_from_slice)
    };
    let visual = |name: &[u8; 4]| boxes(VISUAL_BYTES, name);
    let size = || Some((u32::from(be16(entry, 32)?), u32::from(be16(entry, 34)?)));
    let plain = |codec| size().map(|(width, height)| VideoParameters::new(codec, width, height));
    let known = |made: Result<VideoParameters, ParametersError>| made.ok().map(CodecParameters::Video);
    match kind {
        b"avc1" | b"avc3" => known(VideoParameters::h264(visual(b"avcC")?)),
        b"hvc1" | b"hev1" => known(VideoParameters::h265(visual(b"hvcC")?)),
        b"av01" => Some(CodecParameters::Video(VideoParameters {
            extra_data: visual(b"av1C")?,
            ..plain(VideoCodec::Av1)?
        })),
        b"vp08" => plain(VideoCodec::Vp8).map(CodecParameters::Video),
        b"vp09" => plain(VideoCodec::Vp9).map(CodecParameters::Video),
        b"jpeg" | b"mjpg" => plain(VideoCodec::Mjpeg).map(CodecParameters::Video),
        _ => read_sound(kind, entry, timescale).map(CodecParameters::Audio),
    }
}

fn read_sound(kind: &[u8], entry: &[u8], timescale: u32) -> Option<AudioParameters> {
    let channels = be16(entry, 24)?;
    let inner = |name: &[u8; 4]| child(entry.get(AUDIO_BYTES..)?, name);
    let plain = |codec| AudioParameters::new(codec, timescale, channels);
    Some(match kind {
        b"mp4a" => {
            let esds = decode::<mp4::Esds>(inner(b"esds")?)?;
            let config = esds.es_desc.dec_config;
            match config.object_type_indication {
                0x69 | 0x6b => plain(AudioCodec::Mp3),
                _ => AudioParameters::aac(config.dec_specific?.raw.into()).ok()?,
            }
        }
        b"Opus" => {
            let dops = inner(b"dOps")?;
            // The fields of dOps (Opus in ISOBMFF section 4.3.2) as an OpusHead has them (RFC 7845 section 5.1), which is little-endian.
            let (pre_skip, rate) = (be16(dops, 2)?, dops.get(4..8)?);
            let mut head = b"OpusHead\x01".to_vec();
            head.push(*dops.get(1)?);
            head.extend_from_slice(&pre_skip.to_le_bytes());
            head.extend(rate.iter().rev());
            head.extend_from_slice(&[0, 0, 0]);
            AudioParameters { extra_data: head.into(), ..plain(AudioCodec::Opus) }
        }
        b"ac-3" => {
            let dac3 = inner(b"dac3")?.get(..3)?;
            AudioParameters { extra_data: sync_frame(dac3).to_vec().into(), ..plain(AudioCodec::Ac3) }
        }
        b"twos" => plain(AudioCodec::L16),
        b"alaw" => plain(AudioCodec::Pcma),
        b"ulaw" => plain(AudioCodec::Pcmu),
        _ => return None,
    })
}

/// The head of an AC-3 sync frame that says what a `dac3` box does (ETSI TS 102 366 sections 4.3 and F.4).
fn sync_frame(dac3: &[u8]) -> [u8; 8] {
    let bits = u32::from_be_bytes([0, dac3[0], dac3[1], dac3[2]]);
    let field = |from: u32, length: u32| (bits >> (24 - from - length)) & ((1 << length) - 1);
    let (fscod, bsid, bsmod, acmod) = (field(0, 2), field(2, 5), field(7, 3), field(10, 3));
    let (lfeon, rate) = (field(13, 1), field(14, 5));
    // lfeon follows acmod and up to three mix levels of two bits.
    let mut skip = 3;
    skip += if acmod & 1 != 0 && acmod != 1 { 2 } else { 0 };
    skip += if acmod & 4 != 0 { 2 } else { 0 };
    skip += if acmod == 2 { 2 } else { 0 };
    let tail = (acmod << 13 | lfeon << (15 - skip)) as u16;
    let [high, low] = tail.to_be_bytes();
    [0x0b, 0x77, 0, 0, (fscod << 6 | rate << 1) as u8, (bsid << 3 | bsmod) as u8, high, low]
}

/// The bodies of the `stsd` boxes of a `moov`, one for each track.
pub(super) fn sample_entries(moov: &[u8]) -> Vec<&[u8]> {
    let path = [b"mdia", b"minf", b"stbl", b"stsd"];
    children(moov)
        .filter(|(kind, ..)| kind == b"trak")
        .filter_map(|(_, trak, _)| path.iter().try_fold(trak, |outer, kind| child(outer, kind)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fmp4::{CmafTrack, init_segment};
    use crate::frame::AVCC;
    use std::sync::Arc;

    #[test]
    fn what_was_written_comes_back() {
        let sound =
            |codec, rate, channels| CodecParameters::Audio(AudioParameters::new(codec, rate, channels));
        let mut opus = AudioParameters::new(AudioCodec::Opus, 48_000, 2);
        opus.extra_data = Bytes::from_static(b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0");
        let mut ac3 = AudioParameters::new(AudioCodec::Ac3, 48_000, 6);
        // 48 kHz, 448 kbit/s, three front and two rear channels, low frequencies.
        ac3.extra_data = Bytes::from_static(&[0x0b, 0x77, 0, 0, 0x1e, 0x40, 0xe1, 0x00]);
        let all = [
            CodecParameters::Video(VideoParameters::h264(Bytes::from_static(AVCC)).unwrap()),
            CodecParameters::Video(VideoParameters::new(VideoCodec::Vp9, 640, 360)),
            CodecParameters::Video(VideoParameters::new(VideoCodec::Mjpeg, 640, 360)),
            CodecParameters::Audio(AudioParameters::aac(Bytes::from_static(&[0x11, 0x90])).unwrap()),
            CodecParameters::Audio(opus),
            CodecParameters::Audio(ac3),
            sound(AudioCodec::Pcma, 8000, 1),
            sound(AudioCodec::Pcmu, 8000, 1),
            sound(AudioCodec::L16, 16_000, 2),
            sound(AudioCodec::Mp3, 44_100, 2),
        ];
        for parameters in all {
            let track = CmafTrack { id: 3, parameters: Arc::new(parameters.clone()) };
            let init = init_segment(&[track]).unwrap();
            let head = FileHead::parse(&init).unwrap();
            assert_eq!(head.parameters(), [(3, parameters)]);
        }
    }
}
