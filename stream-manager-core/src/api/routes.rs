//! The routes that answers are counted by: those of the description, however long the ids in an address are.

use super::target::Target;

/// The route of a path.
pub(super) fn route(path: &str) -> &'static str {
    const FIXED: [&str; 30] = [
        "/",
        "/api/audit",
        "/api/config",
        "/api/config/reload",
        "/api/config/schema",
        "/api/config/status",
        "/api/counts",
        "/api/discover",
        "/api/docs",
        "/api/events",
        "/api/heat",
        "/api/exports",
        "/api/hooks",
        "/api/infer",
        "/api/login",
        "/api/logout",
        "/api/logs",
        "/api/marks",
        "/api/me",
        "/api/models",
        "/api/objects",
        "/api/openapi.json",
        "/api/probe",
        "/api/sessions",
        "/api/setup",
        "/api/storage",
        "/api/streams",
        "/api/streams:batch",
        "/api/system",
        "/metrics",
    ];
    const BEGINNINGS: [(&str, &str); 13] = [
        ("/page/", "/page/{name}"),
        ("/hls/", "/hls/{file}"),
        ("/dash/", "/dash/{file}"),
        ("/webrtc/", "/webrtc/{id}"),
        ("/health/", "/health/{check}"),
        ("/api/users", "/api/users"),
        ("/api/tokens", "/api/tokens"),
        ("/api/sessions/", "/api/sessions/{id}"),
        ("/api/backups", "/api/backups"),
        ("/api/exports/", "/api/exports/{id}"),
        ("/api/models/", "/api/models/{name}"),
        ("/api/objects/", "/api/objects/{name}"),
        ("/api/hooks/", "/api/hooks/{name}/test"),
    ];
    if let Some(fixed) = FIXED.iter().find(|fixed| **fixed == path) {
        return fixed;
    }
    if let Some(rest) = path.strip_prefix("/api/streams/") {
        return of_stream(&Target::by_end(rest));
    }
    BEGINNINGS.iter().find(|(start, _)| path.starts_with(start)).map_or("other", |(_, route)| route)
}

fn of_stream(target: &Target<'_>) -> &'static str {
    match target {
        Target::Stream(_) => "/api/streams/{id}",
        Target::Stats(_) => "/api/streams/{id}/stats",
        Target::Sessions(_) => "/api/streams/{id}/sessions",
        Target::Recordings(_) | Target::Protect(..) => "/api/streams/{id}/recordings",
        Target::Recording(..) | Target::Trigger(_) => "/api/streams/{id}/recording/{action}",
        Target::Enable(..) => "/api/streams/{id}/enable",
        Target::Restart(_) => "/api/streams/{id}/restart",
        Target::Inference(_) | Target::Analyse(..) => "/api/streams/{id}/inference",
        Target::Detections(_) => "/api/streams/{id}/detections",
        Target::Live(_) => "/api/streams/{id}/live.mp4",
        Target::Timeline(_) => "/api/streams/{id}/timeline",
        Target::Playback(_) | Target::Playlist(_) => "/api/streams/{id}/playback",
        Target::Snapshot(_) => "/api/streams/{id}/snapshot.jpg",
        Target::Thumbnails(_) => "/api/streams/{id}/thumbnails.jpg",
        Target::Mjpeg(_) => "/api/streams/{id}/mjpeg",
        Target::Marks(_) | Target::Mark(..) => "/api/streams/{id}/marks",
        Target::Exports(_) => "/api/streams/{id}/exports",
        Target::Sign(_) => "/api/streams/{id}/sign",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_asked_for_there_are_few_routes() {
        for (path, expected) in [
            ("/api/streams", "/api/streams"),
            ("/api/streams/yard%2Fdoor", "/api/streams/{id}"),
            ("/api/streams/yard/door/recording/start", "/api/streams/{id}/recording/{action}"),
            ("/hls/a/v0-p17.m4s", "/hls/{file}"),
            ("/api/users/ann", "/api/users"),
            ("/wp-login.php", "other"),
            ("/api/unknown/123", "other"),
        ] {
            assert_eq!(route(path), expected, "{path}");
        }
        // All that are described have one.
        for (_, path) in super::super::openapi::calls() {
            assert_ne!(route(path), "other", "{path}");
        }
    }
}
