//! What a client wants to see of a recording: the query of its address, and the headers of PLAY.

use super::message::Answer;
use super::session::bad;
use crate::frame::WallTime;
use crate::playback::{Gaps, PlaybackRequest};
use rtsp_types::{HeaderName, Request, headers};
use std::time::Duration;

/// Faster than this, and only keyframes are sent.
pub(super) const MAX_WHOLE_SCALE: f64 = 2.0;
/// What `Scale` may be; beyond that the nearest is taken, as RFC 2326 section 12.34 wants it.
const SCALES: std::ops::RangeInclusive<f64> = 0.1..=128.0;

/// The recordings that an address with `start` names; `None` if it has none, and live is meant.
pub(super) fn recorded(query: Option<&str>) -> Result<Option<PlaybackRequest>, Answer> {
    let (mut start, mut end, mut duration, mut gaps) = (None, None, None, Gaps::default());
    let time = |name: &str, value: &str| -> Result<WallTime, Answer> {
        // A plus that was not encoded arrives as a space.
        value.replace(' ', "+").parse().map_err(|e| bad(&format!("{name}: {e}")))
    };
    for (name, value) in url::form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        match &*name {
            "start" => start = Some(time("start", &value)?),
            "end" => end = Some(time("end", &value)?),
            "duration" => {
                let length: crate::config::DurationText =
                    value.parse().map_err(|e| bad(&format!("duration: {e}")))?;
                duration = Some(length.0);
            }
            "gaps" => {
                gaps = match &*value {
                    "skip" => Gaps::Skip,
                    "stop" => Gaps::Stop,
                    _ => return Err(bad("gaps: expected skip or stop")),
                }
            }
            // Whatever else stands there is for the authorizer.
            _ => {}
        }
    }
    let Some(start) = start else {
        return match (end, duration) {
            (None, None) => Ok(None),
            _ => Err(bad("there is an end, and no start")),
        };
    };
    let end = match (end, duration) {
        (Some(_), Some(_)) => return Err(bad("there are an end and a duration; expected one of them")),
        (end, None) => end,
        (None, Some(duration)) => Some(start + duration),
    };
    if end.is_some_and(|end| end <= start) {
        return Err(bad("the end does not lie behind the start"));
    }
    Ok(Some(PlaybackRequest { start, end, gaps }))
}

/// A time in a recording.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Point {
    /// Behind its beginning.
    Normal(Duration),
    /// By the clock on the wall.
    Clock(WallTime),
}

/// What PLAY says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Wanted {
    /// From here; from where it stands without it.
    pub(super) from: Option<Point>,
    pub(super) until: Option<Point>,
    pub(super) scale: f64,
}

impl Wanted {
    pub(super) fn of(request: &Request<Vec<u8>>) -> Result<Self, Answer> {
        let text = |name: &HeaderName| request.header(name).map(|v| v.as_str().trim().to_owned());
        let (from, until) = match text(&headers::RANGE) {
            Some(range) => read_range(&range).ok_or_else(|| Answer::new(457, "Invalid Range"))?,
            None => (None, None),
        };
        let scale = match text(&headers::SCALE) {
            None => 1.0,
            Some(text) => match text.parse::<f64>() {
                // What runs backwards is not to be had: the answer says what is played instead.
                Ok(scale) if scale.is_finite() && scale > 0.0 => scale.clamp(*SCALES.start(), *SCALES.end()),
                Ok(scale) if scale.is_finite() => 1.0,
                _ => return Err(bad("Scale is no number")),
            },
        };
        Ok(Self { from, until, scale })
    }
}

/// RFC 2326 section 12.29: `npt=10.5-20` or `clock=20260131T120000Z-`.
fn read_range(text: &str) -> Option<(Option<Point>, Option<Point>)> {
    let text = text.split(';').next()?.trim();
    let (kind, span) = text.split_once('=')?;
    let (from, until) = span.split_once('-')?;
    let point = |text: &str| -> Option<Option<Point>> {
        match (kind.trim(), text.trim()) {
            (_, "") => Some(None),
            ("npt", "now") => Some(None),
            ("npt", text) => Some(Some(Point::Normal(npt(text)?))),
            ("clock", text) => Some(Some(Point::Clock(clock(text)?))),
            _ => None,
        }
    };
    let (from, until) = (point(from)?, point(until)?);
    let backwards = match (from, until) {
        (Some(Point::Normal(a)), Some(Point::Normal(b))) => b <= a,
        (Some(Point::Clock(a)), Some(Point::Clock(b))) => b <= a,
        _ => false,
    };
    (!backwards).then_some((from, until))
}

/// `12.5` or `1:02:03.5` (RFC 2326 section 3.6).
fn npt(text: &str) -> Option<Duration> {
    let mut seconds = 0.0;
    for part in text.split(':') {
        if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
            return None;
        }
        seconds = seconds * 60.0 + part.parse::<f64>().ok()?;
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// `20260131T120000.25Z` (RFC 2326 section 3.7).
fn clock(text: &str) -> Option<WallTime> {
    let text = text.strip_suffix('Z')?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let whole = WallTime::parse_utc("%Y%m%dT%H%M%S", whole)?;
    if fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let fraction: f64 = format!("0.{fraction}").parse().ok()?;
    Some(whole + Duration::try_from_secs_f64(fraction).ok()?)
}

/// A wall clock time as `Range` has it.
pub(super) fn clock_text(time: WallTime) -> String {
    time.format_utc("%Y%m%dT%H%M%S%.3fZ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> WallTime {
        text.parse().unwrap()
    }

    #[test]
    fn addresses_of_recordings() {
        let of = |query: &str| recorded(Some(query)).map_err(|a| a.reason().to_owned());
        let noon = at("2026-01-31T12:00:00Z");
        let request = |end, gaps| Ok(Some(PlaybackRequest { start: noon, end, gaps }));
        assert_eq!(of("token=a"), Ok(None));
        assert_eq!(of("start=2026-01-31T12:00:00Z&user=x"), request(None, Gaps::Skip));
        let minute = Some(noon + Duration::from_secs(60));
        assert_eq!(of("start=2026-01-31T13:00:00+01:00&duration=1m&gaps=stop"), request(minute, Gaps::Stop));
        assert_eq!(of("start=1769860800&end=1769860860"), request(minute, Gaps::Skip));
        for (query, words) in [
            ("start=then", "start"),
            ("end=1769860860", "no start"),
            ("start=5&end=4", "behind the start"),
            ("start=5&end=6&duration=1s", "one of them"),
            ("start=5&duration=long", "duration"),
            ("start=5&gaps=x", "skip or stop"),
        ] {
            let problem = of(query).unwrap_err();
            assert!(problem.contains(words), "{query}: {problem}");
        }
    }

    #[test]
    fn ranges_as_clients_write_them() {
        let normal = |seconds: f64| Some(Point::Normal(Duration::from_secs_f64(seconds)));
        let noon = at("2026-01-31T12:00:00.25Z");
        for (text, expected) in [
            ("npt=0-", Some((normal(0.0), None))),
            ("npt=0.000-", Some((normal(0.0), None))),
            ("npt=now-", Some((None, None))),
            ("npt=12.5-20", Some((normal(12.5), normal(20.0)))),
            ("npt=1:02:03.5-;time=19970123T143720Z", Some((normal(3723.5), None))),
            ("npt=-5", Some((None, normal(5.0)))),
            ("clock=20260131T120000.25Z-", Some((Some(Point::Clock(noon)), None))),
            ("npt=20-10", None),
            ("npt=a-", None),
            ("npt=1e9-", None),
            ("smpte=0:10:00-", None),
            ("clock=yesterday-", None),
            ("bytes", None),
        ] {
            assert_eq!(read_range(text), expected, "{text}");
        }
        assert_eq!(clock(&clock_text(noon)), Some(noon));
    }

    proptest! {
        #[test]
        fn no_range_panics(text in "\\PC{0,40}", span in "[npt=clock0-9:.TZ-]{0,30}") {
            let _ = read_range(&text);
            let _ = read_range(&span);
            let _ = recorded(Some(&text));
        }
    }
}
