//! Operations on streams, and the media that players ask for.

use super::super::parts::*;
use crate::api::batch::{Batch, BatchResult};
use crate::api::openapi;
use crate::api::statistics::StatsView;
use crate::api::streams::{DryRun, StreamPage};
use crate::api::view::StreamView;
use crate::config::StreamConfig;

const CHANGED: &[Answer] = &[with_etag(200, "The stream", stream_or_dry)];

pub(super) const STREAMS: &[Operation] = &[
    get(
        "/api/streams",
        "listStreams",
        "streams",
        "Lists streams",
        &[
            LIMIT,
            query("after", r#"{"type":"string"}"#, "The \"next\" of the page before"),
            query(
                "sort",
                r#"{"type":"string","enum":["id","-id","state","-state","created","-created","changed","-changed","bitrate","-bitrate"],"default":"id"}"#,
                "The order; with a - the other way round",
            ),
            query(
                "state",
                r#"{"type":"string","enum":["idle","connecting","running","backoff","stopped"]}"#,
                "Only those in this state; several with commas",
            ),
            query(
                "recording",
                r#"{"type":"string","enum":["off","recording","paused","blocked"]}"#,
                "Only those whose recording is in this state; several with commas",
            ),
            query(
                "origin",
                r#"{"type":"string","enum":["file","api","code","pattern"]}"#,
                "Only those that come from here; several with commas",
            ),
            query("enabled", r#"{"type":"boolean"}"#, "Only those that are to run, or not"),
            query("search", r#"{"type":"string"}"#, "Only those with this in their id or address"),
        ],
        &[answer(200, "A page of streams", of::<StreamPage>)],
    ),
    Operation {
        method: "post",
        path: "/api/streams",
        id: "createStream",
        tag: "streams",
        summary: "Makes a stream and starts it",
        parameters: &[DRY_RUN, KEY],
        body: Some((BODY, of::<StreamConfig>)),
        answers: &[
            with_etag(201, "The stream was made", of::<StreamView>),
            answer(200, "What would be done", of::<DryRun>),
        ],
    },
    Operation {
        method: "post",
        path: "/api/streams:batch",
        id: "changeStreams",
        tag: "streams",
        summary: "Makes, changes and deletes many streams in one transaction",
        parameters: &[DRY_RUN, KEY],
        body: Some((BODY, of::<Batch>)),
        answers: &[
            answer(200, "What became of each; some may have failed", of::<BatchResult>),
            Answer {
                status: 422,
                text: "All or none was asked for, and some cannot be done: nothing was. Or the body is wrong",
                body: None,
                also: None,
                etag: false,
            },
        ],
    },
    get(
        "/api/streams/{id}",
        "getStream",
        "streams",
        "One stream: its state and why, tracks, counters, readers, recording, configuration",
        &[],
        &[with_etag(200, "The stream", of::<StreamView>)],
    ),
    Operation {
        method: "put",
        path: "/api/streams/{id}",
        id: "putStream",
        tag: "streams",
        summary: "Makes a stream or replaces its configuration",
        parameters: &[DRY_RUN, IF_MATCH, IF_NONE_MATCH],
        body: Some((BODY, of::<openapi::StreamBody>)),
        answers: &[
            with_etag(200, "The stream", stream_or_dry),
            with_etag(201, "The stream was made", of::<StreamView>),
        ],
    },
    Operation {
        method: "patch",
        path: "/api/streams/{id}",
        id: "patchStream",
        tag: "streams",
        summary: "Changes a stream's configuration (JSON merge patch, RFC 7396)",
        parameters: &[DRY_RUN, IF_MATCH],
        body: Some((PATCH, of::<openapi::StreamPatch>)),
        answers: CHANGED,
    },
    Operation {
        method: "delete",
        path: "/api/streams/{id}",
        id: "deleteStream",
        tag: "streams",
        summary: "Stops a stream, finishes its files and forgets it",
        parameters: &[
            DRY_RUN,
            IF_MATCH,
            query(
                "recordings",
                r#"{"type":"string","enum":["keep","unprotected","all"],"default":"keep"}"#,
                "What becomes of its recordings",
            ),
        ],
        body: None,
        answers: &[empty(204, "It is gone"), answer(200, "What would be done", of::<DryRun>)],
    },
    post(
        "/api/streams/{id}/enable",
        "enableStream",
        "streams",
        "Lets a stream run; also after a restart",
        &[DRY_RUN, IF_MATCH],
        CHANGED,
    ),
    post(
        "/api/streams/{id}/disable",
        "disableStream",
        "streams",
        "Lets a stream run no longer; also after a restart",
        &[DRY_RUN, IF_MATCH],
        CHANGED,
    ),
    post(
        "/api/streams/{id}/restart",
        "restartStream",
        "streams",
        "Stops a stream and starts it again",
        &[DRY_RUN, IF_MATCH],
        CHANGED,
    ),
    get(
        "/api/streams/{id}/stats",
        "getStreamStats",
        "streams",
        "Counters, and what it did in the last ten minutes",
        &[],
        &[answer(200, "The counters", of::<StatsView>)],
    ),
];

#[cfg(not(feature = "hls"))]
pub(super) const PLAYERS: &[Operation] = &[];
/// Media for players; their playlists are not JSON, and are not described here.
#[cfg(feature = "hls")]
pub(super) const PLAYERS: &[Operation] = &[get(
    "/api/streams/{id}/live.mp4",
    "getLiveMp4",
    "streams",
    "Endless fragmented MP4, from the last keyframe on; as a WebSocket, for Media Source Extensions",
    &[],
    &[Answer {
        status: 200,
        text: "Fragmented MP4 without an end",
        body: Some(("video/mp4", binary)),
        also: None,
        etag: false,
    }],
)];
