//! All operations of the API.

use super::super::batch::{Batch, BatchResult};
#[cfg(feature = "onvif")]
use super::super::discover::{DiscoverRequest, DiscoverView};
#[cfg(feature = "inference")]
use super::super::inference::{AnalysisView, ModelPage};
use super::super::logs::LogPage;
use super::super::recordings::{Deleted, Protected, RecordingsPage};
use super::super::sessions::{Ended, SessionPage};
use super::super::settings::Applied;
use super::super::streams::{DryRun, StatsView, StreamPage};
use super::super::system::{HookPage, HookTest, ProbeRequest, ProbeView};
use super::super::view::{RecordingView, StreamView};
use super::super::{Health, openapi};
use super::parts::*;
use crate::config::StreamConfig;
use crate::manager::{ConfigStatus, StorageReport, SystemReport};
use crate::session::SessionInfo;
#[cfg(feature = "inference")]
use crate::{detection::Detections, inference::ModelStatus};

pub(super) const TAGS: &[(&str, &str)] = &[
    ("streams", "What is taken in"),
    ("recordings", "What is recorded"),
    ("sessions", "Who watches and who publishes"),
    ("events", "What happens"),
    ("config", "Settings"),
    ("inference", "What is seen in pictures"),
    ("system", "The program and the machine"),
];

const RECORDING: &[Answer] = &[answer(200, "The recording", of::<RecordingView>)];
const CHANGED: &[Answer] = &[with_etag(200, "The stream", stream_or_dry)];

pub(super) const OPERATIONS: &[Operation] = &[
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
    get(
        "/api/streams/{id}/sessions",
        "listStreamSessions",
        "sessions",
        "Who watches or publishes a stream",
        &[
            LIMIT,
            query(
                "after",
                r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
                "The \"next\" of the page before",
            ),
        ],
        &[answer(200, "A page of sessions", of::<SessionPage>)],
    ),
    Operation {
        method: "delete",
        path: "/api/streams/{id}/sessions",
        id: "endStreamSessions",
        tag: "sessions",
        summary: "Ends all sessions of a stream",
        parameters: &[],
        body: None,
        answers: &[answer(200, "How many were ended", of::<Ended>)],
    },
    post(
        "/api/streams/{id}/recording/start",
        "startRecording",
        "recordings",
        "Records a stream; also after a restart",
        &[],
        RECORDING,
    ),
    post(
        "/api/streams/{id}/recording/stop",
        "stopRecording",
        "recordings",
        "Finishes the file and records no longer; also after a restart",
        &[],
        RECORDING,
    ),
    post(
        "/api/streams/{id}/recording/pause",
        "pauseRecording",
        "recordings",
        "Holds a recording; also after a restart",
        &[],
        RECORDING,
    ),
    post(
        "/api/streams/{id}/recording/resume",
        "resumeRecording",
        "recordings",
        "Goes on after a pause",
        &[],
        RECORDING,
    ),
    post(
        "/api/streams/{id}/recording/split",
        "splitRecording",
        "recordings",
        "Begins a new segment at the next keyframe",
        &[],
        RECORDING,
    ),
    get(
        "/api/streams/{id}/recordings",
        "listRecordings",
        "recordings",
        "What has been recorded: spans and gaps, or segments, or what is marked in it",
        &[
            START,
            END,
            LIMIT,
            query("after", r#"{"type":"string"}"#, "The \"next\" of the page before"),
            query(
                "view",
                r#"{"type":"string","enum":["spans","segments","marks"],"default":"spans"}"#,
                "What to list",
            ),
        ],
        &[answer(200, "A page of them", of::<RecordingsPage>)],
    ),
    Operation {
        method: "delete",
        path: "/api/streams/{id}/recordings",
        id: "deleteRecordings",
        tag: "recordings",
        summary: "Deletes the segments that lie wholly in a range",
        parameters: &[
            START_NEEDED,
            END_NEEDED,
            query("protected", r#"{"type":"boolean","default":false}"#, "Also the protected ones"),
        ],
        body: None,
        answers: &[answer(200, "What was deleted", of::<Deleted>)],
    },
    post(
        "/api/streams/{id}/recordings/protect",
        "protectRecordings",
        "recordings",
        "Protects the segments that touch a range from being deleted by age or size",
        &[START_NEEDED, END_NEEDED],
        &[answer(200, "How many have changed", of::<Protected>)],
    ),
    post(
        "/api/streams/{id}/recordings/unprotect",
        "unprotectRecordings",
        "recordings",
        "Protects them no longer",
        &[START_NEEDED, END_NEEDED],
        &[answer(200, "How many have changed", of::<Protected>)],
    ),
    get(
        "/api/sessions",
        "listSessions",
        "sessions",
        "Who watches or publishes, over all protocols",
        &[
            LIMIT,
            query(
                "after",
                r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
                "The \"next\" of the page before",
            ),
        ],
        &[answer(200, "A page of sessions", of::<SessionPage>)],
    ),
    get(
        "/api/sessions/{id}",
        "getSession",
        "sessions",
        "One session",
        &[],
        &[answer(200, "The session", of::<SessionInfo>)],
    ),
    Operation {
        method: "delete",
        path: "/api/sessions/{id}",
        id: "endSession",
        tag: "sessions",
        summary: "Ends a session",
        parameters: &[],
        body: None,
        answers: &[empty(204, "It is being ended")],
    },
    get(
        "/api/events",
        "getEvents",
        "events",
        "What happens: by WebSocket if the request asks for one, as server-sent events otherwise",
        &[
            query(
                "stream",
                r#"{"type":"string"}"#,
                "Only these streams: ids, in which * stands for anything, with commas",
            ),
            query("kind", r#"{"type":"string"}"#, "Only these kinds, with commas"),
            query(
                "after",
                r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
                "Begin behind this event's id",
            ),
            header(
                "Last-Event-ID",
                r#"{"type":"string","pattern":"^[0-9]{0,15}$"}"#,
                "The same, as browsers send it",
            ),
        ],
        &[Answer {
            status: 200,
            text: "Events without an end. Each has `id`, `event` (its kind) and `data` (see the schema Event)",
            body: Some(("text/event-stream", server_sent_event)),
            also: None,
            etag: false,
        }],
    ),
    get(
        "/api/hooks",
        "listHooks",
        "events",
        "Webhooks, programs and the MQTT broker: how they stand",
        &[],
        &[answer(200, "The hooks", of::<HookPage>)],
    ),
    post(
        "/api/hooks/{name}/test",
        "testHook",
        "events",
        "Carries a hook out with an event of kind test",
        &[],
        &[answer(200, "How it went", of::<HookTest>)],
    ),
    get(
        "/api/config",
        "getConfig",
        "config",
        "The configuration in force, without streams; or all of it as a file",
        &[query("format", r#"{"type":"string","enum":["json","toml"],"default":"json"}"#, "As what")],
        &[Answer {
            also: Some(("application/toml", text)),
            ..answer(200, "The configuration, without secrets", anything)
        }],
    ),
    Operation {
        method: "patch",
        path: "/api/config",
        id: "patchConfig",
        tag: "config",
        summary: "Changes settings that the file does not set (JSON merge patch, RFC 7396)",
        parameters: &[DRY_RUN],
        body: Some((PATCH, of::<openapi::ConfigPatch>)),
        answers: &[answer(200, "What has changed", of::<Applied>)],
    },
    post(
        "/api/config/reload",
        "reloadConfig",
        "config",
        "Reads the configuration file again",
        &[],
        &[answer(200, "What has changed", of::<Applied>)],
    ),
    get(
        "/api/config/status",
        "getConfigStatus",
        "config",
        "How the configuration stands: when it was read, and why the last one was refused",
        &[],
        &[answer(200, "How it stands", of::<ConfigStatus>)],
    ),
    get(
        "/api/config/schema",
        "getConfigSchema",
        "config",
        "The JSON Schema of the configuration file",
        &[],
        &[answer(200, "The schema", anything)],
    ),
    get(
        "/api/storage",
        "getStorage",
        "recordings",
        "The disks, what is on them, how long they will do",
        &[],
        &[answer(200, "The disks", of::<StorageReport>)],
    ),
    get(
        "/api/system",
        "getSystem",
        "system",
        "Version, features, GStreamer, load",
        &[],
        &[answer(200, "The program and the machine", of::<SystemReport>)],
    ),
    get(
        "/api/logs",
        "getLogs",
        "system",
        "The last lines of the log",
        &[
            query(
                "level",
                r#"{"type":"string","enum":["error","warn","info","debug","trace"]}"#,
                "Only these and worse",
            ),
            query("stream", r#"{"type":"string"}"#, "Only about this stream"),
            LIMIT,
            query(
                "after",
                r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
                "Only behind this line",
            ),
            query(
                "follow",
                r#"{"type":"boolean","const":false}"#,
                "With true: server-sent events without an end",
            ),
        ],
        &[Answer {
            also: Some(("text/event-stream", server_sent_event)),
            ..answer(200, "The lines", of::<LogPage>)
        }],
    ),
    Operation {
        method: "post",
        path: "/api/probe",
        id: "probe",
        tag: "system",
        summary: "Looks at an address: its tracks and a picture",
        parameters: &[],
        body: Some((BODY, of::<ProbeRequest>)),
        answers: &[answer(200, "What was found", of::<ProbeView>)],
    },
    get(
        "/health/live",
        "getLive",
        "system",
        "Whether the process runs",
        &[],
        &[answer(200, "It does", of::<Health>)],
    ),
    get(
        "/health/ready",
        "getReady",
        "system",
        "Whether it is ready for requests",
        &[],
        &[answer(200, "It is", of::<Health>)],
    ),
];

/// Those of the feature `inference`.
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

#[cfg(not(feature = "onvif"))]
pub(super) const ONVIF: &[Operation] = &[];
/// Those of the feature `onvif`.
#[cfg(feature = "onvif")]
pub(super) const ONVIF: &[Operation] = &[Operation {
    method: "post",
    path: "/api/discover",
    id: "discover",
    tag: "system",
    summary: "Looks for ONVIF devices: what they are and send, and the streams that take that in",
    parameters: &[],
    body: Some((BODY, of::<DiscoverRequest>)),
    answers: &[answer(200, "What was found", of::<DiscoverView>)],
}];

#[cfg(not(feature = "inference"))]
pub(super) const INFERENCE: &[Operation] = &[];

/// Those of the feature `inference`.
#[cfg(feature = "inference")]
pub(super) const INFERENCE: &[Operation] = &[
    get(
        "/api/streams/{id}/inference",
        "getInference",
        "inference",
        "A stream's analysis: its state and why, settings, counters, and what was seen last",
        &[],
        &[answer(200, "The analysis", of::<AnalysisView>)],
    ),
    Operation {
        method: "patch",
        path: "/api/streams/{id}/inference",
        id: "patchInference",
        tag: "inference",
        summary: "Changes how a stream is analysed, without touching the stream (JSON merge patch, RFC 7396)",
        parameters: &[DRY_RUN, IF_MATCH],
        body: Some((PATCH, of::<openapi::InferencePatch>)),
        answers: &[answer(200, "The analysis", analysis_or_dry)],
    },
    post(
        "/api/streams/{id}/inference/start",
        "startInference",
        "inference",
        "Analyses a stream from now on, also after a restart",
        &[],
        &[answer(200, "The analysis", of::<AnalysisView>)],
    ),
    post(
        "/api/streams/{id}/inference/stop",
        "stopInference",
        "inference",
        "Analyses a stream no longer, also after a restart",
        &[],
        &[answer(200, "The analysis", of::<AnalysisView>)],
    ),
    get(
        "/api/models",
        "listModels",
        "inference",
        "The models: what runs them and why, what they take and give, how fast they are",
        &[],
        &[answer(200, "The models", of::<ModelPage>)],
    ),
    get(
        "/api/models/{name}",
        "getModel",
        "inference",
        "One model",
        &[],
        &[answer(200, "The model", of::<ModelStatus>)],
    ),
    post(
        "/api/models/{name}/reload",
        "reloadModel",
        "inference",
        "Loads a model's file again; the old one works until the new one does",
        &[],
        &[answer(200, "The model", of::<ModelStatus>)],
    ),
    Operation {
        method: "post",
        path: "/api/infer",
        id: "infer",
        tag: "inference",
        summary: "Says what is in a picture: JPEG or PNG, whose types are content types here as well",
        parameters: &[
            query("model", r#"{"type":"string"}"#, "The model; not needed if there is only one"),
            query(
                "threshold",
                r#"{"type":"number","minimum":0,"maximum":1}"#,
                "The lowest score that counts",
            ),
            query("classes", r#"{"type":"string"}"#, "Only these classes, with commas"),
        ],
        body: Some((IMAGE, binary)),
        answers: &[answer(200, "What was seen", of::<Detections>)],
    },
];
