//! From one picture to another: GOPs that lie wholly inside stay as they are, those at the edges are encoded anew.
//!
//! Both have to be decoded by one decoder, so the encoder's parameter sets have ids of their own, and stand beside the camera's in the
//! file's one `avcC` (ISO/IEC 14496-15 section 5.3.3.1; ids: ITU-T H.264 sections 7.4.2.1.1 and 7.4.2.2).

use super::encode::{Timed, Work, with_parameters};
use super::recode::{Encode, Recode, RecodeOptions};
use crate::frame::{CodecParameters, Frame, MediaTime, VideoParameters};
use crate::pipeline::{ErrorCause, PipelineError};
use crate::playback::PlaybackError;
use std::sync::Arc;

/// A picture with its parameter sets costs no more than this beyond its own.
const QUANTIZER: u32 = 18;
/// Frames of one GOP that are held at most.
const MAX_GOP: usize = 20_000;

/// Where the work stands.
#[derive(Default)]
pub(super) struct Edges {
    /// What all pictures of the file have.
    parameters: Option<Joined>,
    /// The GOP that is being read.
    gop: Vec<Timed>,
    /// The one before, which open GOPs refer to.
    before: Vec<Timed>,
    /// Whether what was written last was encoded anew, so that nothing can refer to it.
    anew: bool,
}

/// The camera's parameters with the encoder's.
struct Joined {
    line: String,
    parameters: Arc<CodecParameters>,
}

fn failed(problem: &str) -> PlaybackError {
    PipelineError::Element { element: "export".into(), message: problem.into(), cause: ErrorCause::Other }
        .into()
}

impl Edges {
    pub(super) async fn run(mut self, work: &mut Work<'_>) -> Result<(), PlaybackError> {
        while let Some(timed) = work.next().await? {
            let frame = &timed.frame;
            if frame.track != work.main() {
                if work.is_in(timed.shown) {
                    work.writer.sound(timed.frame);
                }
                continue;
            }
            if frame.keyframe && !self.gop.is_empty() {
                self.finish_gop(work).await?;
            }
            if frame.keyframe || !self.gop.is_empty() {
                self.gop.push(timed);
            }
            if self.gop.len() > MAX_GOP {
                return Err(failed("there is no keyframe for too long"));
            }
        }
        self.finish_gop(work).await
    }

    async fn finish_gop(&mut self, work: &mut Work<'_>) -> Result<(), PlaybackError> {
        let gop = std::mem::take(&mut self.gop);
        let Some(first) = gop.first() else { return Ok(()) };
        let inside = gop.iter().filter(|timed| work.is_in(timed.shown)).count();
        // Pictures that are shown before the keyframe and decoded behind it may refer to the GOP before.
        let open = gop.iter().any(|timed| timed.frame.pts < first.frame.pts) || !is_idr(&first.frame);
        if inside > 0 {
            let joined = match self.parameters.take() {
                Some(joined) => joined,
                None => Joined::of(&first.frame).await?,
            };
            if inside == gop.len() && !(open && (self.anew || work.writer.start().is_none())) {
                for timed in &gop {
                    let frame = with_parameters(timed.frame.clone(), &joined.parameters);
                    work.writer.picture(frame, timed.shown).await?;
                }
                self.anew = false;
            } else {
                let context = if open { std::mem::take(&mut self.before) } else { Vec::new() };
                self.encode(work, &context, &gop, &joined).await?;
                self.anew = true;
            }
            self.parameters = Some(joined);
        }
        self.before = gop;
        Ok(())
    }

    /// Encodes those pictures of a GOP that lie inside.
    async fn encode(
        &mut self,
        work: &mut Work<'_>,
        context: &[Timed],
        gop: &[Timed],
        joined: &Joined,
    ) -> Result<(), PlaybackError> {
        let range = work.range;
        let inside = |timed: &&Timed| (range.start..range.end).contains(&timed.shown);
        let wanted: Vec<MediaTime> = gop.iter().filter(inside).map(|timed| timed.frame.pts).collect();
        let (Some(from), Some(to)) = (wanted.iter().min().copied(), wanted.iter().max().copied()) else {
            return Ok(());
        };
        let options = RecodeOptions {
            decide: Box::new(move |shown| (from..=to).contains(&shown.pts).then_some(shown.pts)),
            caption: None,
            encode: Encode::Line(joined.line.clone()),
        };
        let all: Vec<&Timed> = context.iter().chain(gop).collect();
        let Some(first) = all.first() else { return Ok(()) };
        let mut recode = Recode::start(&first.frame, options).await?;
        for timed in &all {
            recode.push(&timed.frame, timed.shown).await?;
        }
        let made = recode.finish().await?;
        let same = |made: &super::recode::Made| joined.holds(&made.parameters);
        if !made.iter().all(same) {
            return Err(failed("the encoder has changed its parameters"));
        }
        let made: Vec<_> = made
            .into_iter()
            .map(|made| super::recode::Made { parameters: joined.parameters.clone(), ..made })
            .collect();
        work.write(made).await
    }
}

/// Whether a frame of H.264 begins anew: has a slice of an IDR picture (`nal_unit_type` 5).
fn is_idr(frame: &Frame) -> bool {
    nal_units(&frame.data).any(|nal| nal.first().is_some_and(|head| head & 0x1f == 5))
}

/// NAL units with a length of four bytes in front of each.
fn nal_units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let head = data.get(at..at + 4)?;
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let nal = data.get(at + 4..(at + 4).checked_add(length)?)?;
        at += 4 + length;
        Some(nal)
    })
}

/// The parameter sets of an `avcC`, and what stands behind them.
#[derive(Debug, PartialEq, Eq)]
struct Sets<'a> {
    sps: Vec<&'a [u8]>,
    pps: Vec<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Sets<'a> {
    fn of(avcc: &'a [u8]) -> Option<Self> {
        let mut at = 6;
        let list = |count: usize, at: &mut usize| {
            (0..count)
                .map(|_| {
                    let head = avcc.get(*at..*at + 2)?;
                    let length = usize::from(u16::from_be_bytes([head[0], head[1]]));
                    let set = avcc.get(*at + 2..*at + 2 + length)?;
                    *at += 2 + length;
                    Some(set)
                })
                .collect::<Option<Vec<_>>>()
        };
        let sps = list(usize::from(avcc.get(5)? & 0x1f), &mut at)?;
        let count = usize::from(*avcc.get(at)?);
        at += 1;
        let pps = list(count, &mut at)?;
        Some(Self { sps, pps, rest: avcc.get(at..).unwrap_or_default() })
    }
}

/// The first number of a parameter set's payload, an unsigned Exp-Golomb code (ITU-T H.264 section 9.1); `skip` bytes stand before it.
fn set_id(set: &[u8], skip: usize) -> Option<u32> {
    let mut bits = crate::frame::BitReader::new(set.get(skip..)?);
    bits.ue()
}

/// An id that no parameter set has yet. x264 gives its sets all the same one.
fn free_id(sets: &Sets<'_>) -> Option<u32> {
    // Header, then profile, constraints and level stand before an SPS's id; only the header before a PPS's.
    let used: Vec<u32> = sets
        .sps
        .iter()
        .filter_map(|sps| set_id(sps, 4))
        .chain(sets.pps.iter().filter_map(|pps| set_id(pps, 1)))
        .collect();
    (1..32).find(|id| !used.contains(id))
}

/// The camera's `avcC` with an encoder's parameter sets.
fn joined(camera: &[u8], encoder: &[u8]) -> Option<Vec<u8>> {
    let (own, other) = (Sets::of(camera)?, Sets::of(encoder)?);
    let mut out = camera.get(..5)?.to_vec();
    // Whoever decodes it has to be up to both.
    if let (Some(level), Some(theirs)) = (out.get_mut(3), encoder.get(3)) {
        *level = (*level).max(*theirs);
    }
    let mut put = |count: u8, sets: &mut dyn Iterator<Item = &&[u8]>| {
        out.push(count);
        for set in sets {
            out.extend_from_slice(&u16::try_from(set.len()).ok()?.to_be_bytes());
            out.extend_from_slice(set);
        }
        Some(())
    };
    let count = u8::try_from(own.sps.len() + other.sps.len()).ok().filter(|count| *count < 32)?;
    put(0xe0 | count, &mut own.sps.iter().chain(&other.sps))?;
    let count = u8::try_from(own.pps.len() + other.pps.len()).ok()?;
    put(count, &mut own.pps.iter().chain(&other.pps))?;
    out.extend_from_slice(own.rest);
    Some(out)
}

impl Joined {
    /// Encodes one picture to see how the encoder does it.
    async fn of(keyframe: &Frame) -> Result<Self, PlaybackError> {
        let video = keyframe.parameters.video().ok_or_else(|| failed("there are no pictures"))?;
        let sets = Sets::of(&video.extra_data).ok_or_else(|| failed("its parameter sets cannot be read"))?;
        let id = free_id(&sets).ok_or_else(|| failed("all ids of parameter sets are taken"))?;
        let line = line(video, id);
        let options = RecodeOptions {
            decide: Box::new(|shown| Some(shown.pts)),
            caption: None,
            encode: Encode::Line(line.clone()),
        };
        let mut recode = Recode::start(keyframe, options).await?;
        recode.push(keyframe, keyframe.wall_clock).await?;
        let made = recode.finish().await?;
        let made = made.front().ok_or_else(|| failed("a keyframe cannot be decoded"))?;
        let encoder = made.parameters.video().ok_or_else(|| failed("there are no pictures"))?;
        if (encoder.width, encoder.height) != (video.width, video.height) {
            return Err(failed("its pictures have a size that the encoder cannot make"));
        }
        let avcc = joined(&video.extra_data, &encoder.extra_data)
            .ok_or_else(|| failed("the parameter sets do not fit together"))?;
        // By the camera's SPS, which is the first.
        let made = VideoParameters { extra_data: avcc.into(), ..video.clone() };
        Ok(Self { line, parameters: Arc::new(CodecParameters::Video(made)) })
    }

    /// Whether an encoder's parameter sets are in it.
    fn holds(&self, encoder: &CodecParameters) -> bool {
        let (Some(all), Some(one)) = (self.parameters.video(), encoder.video()) else { return false };
        let (Some(all), Some(one)) = (Sets::of(&all.extra_data), Sets::of(&one.extra_data)) else {
            return false;
        };
        one.sps.iter().all(|sps| all.sps.contains(sps)) && one.pps.iter().all(|pps| all.pps.contains(pps))
    }
}

/// The encoder: as good as what it stands beside, without B frames, in the camera's own profile, its parameter sets with this id.
fn line(video: &VideoParameters, id: u32) -> String {
    let profile = match video.extra_data.get(1) {
        Some(66) => ",profile=constrained-baseline",
        Some(77) => ",profile=main",
        Some(100) => ",profile=high",
        _ => "",
    };
    format!(
        "videoconvert ! capsfilter caps=\"video/x-raw,format=I420\" \
         ! x264enc tune=zerolatency speed-preset=veryfast bframes=0 pass=qual quantizer={QUANTIZER} key-int-max=500 \
         option-string=\"sps-id={id}\" \
         ! capsfilter caps=\"video/x-h264{profile}\" ! h264parse \
         ! capsfilter caps=\"video/x-h264,stream-format=avc,alignment=au\""
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::AVCC;
    use bytes::Bytes;

    #[test]
    fn parameter_sets_stand_beside_each_other() {
        let sets = Sets::of(AVCC).unwrap();
        assert_eq!((sets.sps.len(), sets.pps.len(), free_id(&sets)), (1, 1, Some(1)));
        assert_eq!(sets.rest, [0xfd, 0xf8, 0xf8, 0]);
        let mut other = AVCC.to_vec();
        other[3] = 0x33;
        let both = joined(AVCC, &other).unwrap();
        let parsed = Sets::of(&both).unwrap();
        assert_eq!((parsed.sps.len(), parsed.pps.len(), parsed.rest), (2, 2, sets.rest));
        assert_eq!(both[3], 0x33);
        // The first is still the camera's.
        let video = VideoParameters::h264(Bytes::from(both)).unwrap();
        assert_eq!((video.width, video.height), (640, 360));
        assert_eq!(joined(&AVCC[..9], AVCC), None);
    }

    #[test]
    fn nal_units_are_told_apart() {
        let data = [0, 0, 0, 2, 0x67, 1, 0, 0, 0, 1, 0x65, 0, 0, 0, 9, 1];
        assert_eq!(nal_units(&data).map(|nal| nal[0] & 0x1f).collect::<Vec<_>>(), [7, 5]);
    }
}
