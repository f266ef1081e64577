//! What a path below `/api/streams/` is about. An id may contain slashes, so the end of the path decides.

use super::ApiState;
use crate::recording::RecordingAction;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target<'a> {
    Stream(&'a str),
    Stats(&'a str),
    Sessions(&'a str),
    Recordings(&'a str),
    Protect(&'a str, bool),
    Recording(&'a str, RecordingAction),
    Trigger(&'a str),
    Enable(&'a str, bool),
    Restart(&'a str),
    Inference(&'a str),
    Analyse(&'a str, bool),
    Detections(&'a str),
    Live(&'a str),
    Timeline(&'a str),
    Playback(&'a str),
    Playlist(&'a str),
    Snapshot(&'a str),
    Thumbnails(&'a str),
    Mjpeg(&'a str),
    Marks(&'a str),
    Mark(&'a str, &'a str),
    Exports(&'a str),
    Sign(&'a str),
}

impl<'a> Target<'a> {
    /// A stream whose id is the whole path comes first.
    pub(super) fn of(state: &ApiState, path: &'a str) -> Self {
        if state.manager.info(path).is_ok() { Self::Stream(path) } else { Self::by_end(path) }
    }

    pub(super) fn by_end(path: &'a str) -> Self {
        let Some((front, last)) = path.rsplit_once('/') else { return Self::Stream(path) };
        let action = RecordingAction::from_name(last);
        if let (Some(action), Some(id)) = (action, front.strip_suffix("/recording")) {
            return Self::Recording(id, action);
        }
        if let ("trigger", Some(id)) = (last, front.strip_suffix("/recording")) {
            return Self::Trigger(id);
        }
        if let ("start" | "stop", Some(id)) = (last, front.strip_suffix("/inference")) {
            return Self::Analyse(id, last == "start");
        }
        if let Some(id) = front.strip_suffix("/marks") {
            return Self::Mark(id, last);
        }
        match (last, front.strip_suffix("/recordings")) {
            ("protect" | "unprotect", Some(id)) => Self::Protect(id, last == "protect"),
            ("recordings", _) => Self::Recordings(front),
            ("stats", _) => Self::Stats(front),
            ("sessions", _) => Self::Sessions(front),
            ("enable" | "disable", _) => Self::Enable(front, last == "enable"),
            ("restart", _) => Self::Restart(front),
            ("inference", _) => Self::Inference(front),
            ("detections", _) => Self::Detections(front),
            ("live.mp4", _) => Self::Live(front),
            ("timeline", _) => Self::Timeline(front),
            ("playback", _) => Self::Playback(front),
            ("playback.m3u8", _) => Self::Playlist(front),
            ("snapshot.jpg", _) => Self::Snapshot(front),
            ("thumbnails.jpg", _) => Self::Thumbnails(front),
            ("mjpeg", _) => Self::Mjpeg(front),
            ("marks", _) => Self::Marks(front),
            ("exports", _) => Self::Exports(front),
            ("sign", _) => Self::Sign(front),
            _ => Self::Stream(path),
        }
    }

    /// The methods that it knows.
    pub(super) fn methods(&self) -> &'static str {
        match self {
            Self::Stream(_) => "GET, HEAD, PUT, PATCH, DELETE",
            Self::Stats(_) | Self::Timeline(_) | Self::Snapshot(_) | Self::Thumbnails(_) | Self::Mjpeg(_) => {
                "GET, HEAD"
            }
            Self::Detections(_) => "GET",
            Self::Marks(_) | Self::Exports(_) => "GET, HEAD, POST",
            Self::Mark(..) => "DELETE",
            Self::Live(_) | Self::Playback(_) | Self::Playlist(_) => "GET, HEAD, OPTIONS",
            Self::Sessions(_) | Self::Recordings(_) => "GET, HEAD, DELETE",
            Self::Inference(_) => "GET, HEAD, PATCH",
            Self::Protect(..)
            | Self::Recording(..)
            | Self::Trigger(_)
            | Self::Enable(..)
            | Self::Restart(_)
            | Self::Analyse(..)
            | Self::Sign(_) => "POST",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_path_decides() {
        for (path, target) in [
            ("a", Target::Stream("a")),
            ("yard/door", Target::Stream("yard/door")),
            ("yard/door/stats", Target::Stats("yard/door")),
            ("a/recording/start", Target::Recording("a", RecordingAction::Start)),
            ("a/start", Target::Stream("a/start")),
            ("a/recording/auto", Target::Recording("a", RecordingAction::Auto)),
            ("yard/door/recording/trigger", Target::Trigger("yard/door")),
            ("a/recordings", Target::Recordings("a")),
            ("a/recordings/unprotect", Target::Protect("a", false)),
            ("cam/*/disable", Target::Enable("cam/*", false)),
            ("restart", Target::Stream("restart")),
            ("yard/door/inference", Target::Inference("yard/door")),
            ("yard/door/detections", Target::Detections("yard/door")),
            ("a/inference/stop", Target::Analyse("a", false)),
            ("yard/door/live.mp4", Target::Live("yard/door")),
            ("yard/door/playback", Target::Playback("yard/door")),
            ("a/timeline", Target::Timeline("a")),
            ("yard/door/marks", Target::Marks("yard/door")),
            ("yard/door/marks/17", Target::Mark("yard/door", "17")),
            ("yard/door/exports", Target::Exports("yard/door")),
            ("yard/door/mjpeg", Target::Mjpeg("yard/door")),
            ("yard/door/sign", Target::Sign("yard/door")),
        ] {
            assert_eq!(Target::by_end(path), target, "{path}");
        }
    }
}
