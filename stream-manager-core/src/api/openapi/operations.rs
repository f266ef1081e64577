//! All operations of the API.

use super::super::backups::BackupPage;
use super::super::batch::{Batch, BatchResult};
#[cfg(feature = "onvif")]
use super::super::discover::{DiscoverRequest, DiscoverView};
use super::super::exports::{ExportPage, NewExport};
use super::super::health::Health;
#[cfg(feature = "inference")]
use super::super::inference::{AnalysisView, ModelPage};
use super::super::logs::LogPage;
use super::super::marks::{MarkPage, NewMark};
use super::super::objects::{CountPage, ObjectPage, ObjectView};
use super::super::openapi;
use super::super::playback::TimelineView;
use super::super::recordings::{Deleted, Protected, RecordingsPage};
use super::super::sessions::{Ended, SessionPage};
use super::super::settings::Applied;
use super::super::streams::{DryRun, StatsView, StreamPage};
use super::super::system::{HookPage, HookTest, ProbeRequest, ProbeView};
use super::super::view::{RecordingView, StreamView};
use super::parts::*;
use crate::config::StreamConfig;
use crate::health::{HealthReport, StreamHealth};
use crate::manager::{BackupInfo, ConfigStatus, ExportInfo, StorageReport, SystemReport};
use crate::session::SessionInfo;
use crate::storage::index::MarkRow;
use crate::storage::objects::HeatMap;
#[cfg(feature = "inference")]
use crate::{detection::Detections, inference::ModelStatus};

pub(super) const TAGS: &[(&str, &str)] = &[
    ("streams", "What is taken in"),
    ("recordings", "What is recorded"),
    ("sessions", "Who watches and who publishes"),
    ("events", "What happens"),
    ("config", "Settings"),
    ("access", "Who may do what"),
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
    post(
        "/api/streams/{id}/recording/auto",
        "leaveRecordingToItsModes",
        "recordings",
        "Leaves a recording to its modes again, after a start, a pause or a stop",
        &[],
        RECORDING,
    ),
    post(
        "/api/streams/{id}/recording/trigger",
        "triggerRecording",
        "recordings",
        "Tells of an event, which is recorded with what came before it, and marked; a JSON body is kept with the mark",
        &[
            query(
                "kind",
                r#"{"type":"string","pattern":"^[A-Za-z0-9._-]{1,60}$","default":"event"}"#,
                "What kind of event",
            ),
            query("text", r#"{"type":"string","maxLength":500}"#, "What happened, in words"),
            query("duration", SECONDS, "For how long from now on it is recorded, if not for post_roll"),
        ],
        RECORDING,
    ),
    get(
        "/api/streams/{id}/timeline",
        "getTimeline",
        "recordings",
        "Spans, gaps and marks of a range in few words, for drawing it",
        &[START, END, query("resolution", SECONDS, "Gaps shorter than this are left out")],
        &[answer(200, "What there is", of::<TimelineView>)],
    ),
    get(
        "/api/streams/{id}/playback",
        "getPlayback",
        "recordings",
        "What was recorded in a range as one file, which can be had in pieces (Range); without an end it goes on into live",
        &[START_NEEDED, END, DURATION, FORMAT, GAPS],
        PIECES,
    ),
    get(
        "/api/streams/{id}/snapshot.jpg",
        "getSnapshot",
        "recordings",
        "A picture: of what the stream shows now, by its last keyframe, or of what was recorded at a time",
        &[
            query("time", TIME, "RFC 3339, or seconds since 1970; now if it is not given"),
            query(
                "width",
                r#"{"type":"integer","minimum":8,"maximum":16384}"#,
                "In pixels, if it is to be smaller",
            ),
            QUALITY,
        ],
        PICTURE,
    ),
    get(
        "/api/streams/{id}/mjpeg",
        "getMjpeg",
        "streams",
        "What the stream shows, picture by picture without an end, for an <img>: of each keyframe one; of MJPEG all, as they are",
        &[
            query(
                "fps",
                r#"{"type":"number","minimum":0.01,"maximum":60,"default":10}"#,
                "Pictures a second at most",
            ),
            query(
                "width",
                r#"{"type":"integer","minimum":8,"maximum":16384}"#,
                "In pixels, if it is to be smaller",
            ),
            QUALITY,
        ],
        &[Answer {
            status: 200,
            text: "JPEGs without an end",
            body: Some(("multipart/x-mixed-replace", binary)),
            also: None,
            etag: false,
        }],
    ),
    get(
        "/api/streams/{id}/thumbnails.jpg",
        "getThumbnails",
        "recordings",
        "Small pictures, evenly over a range, as one picture",
        &[
            START_NEEDED,
            END_NEEDED,
            query("count", r#"{"type":"integer","minimum":1,"maximum":1500,"default":24}"#, "How many"),
            query(
                "columns",
                r#"{"type":"integer","minimum":1,"maximum":1500,"default":10}"#,
                "How many in a row",
            ),
            query(
                "width",
                r#"{"type":"integer","minimum":8,"maximum":1024,"default":160}"#,
                "Of each, in pixels",
            ),
            QUALITY,
        ],
        PICTURE,
    ),
    get(
        "/api/marks",
        "searchMarks",
        "recordings",
        "What is marked in recordings, of all streams or some",
        &[
            query(
                "stream",
                r#"{"type":"string"}"#,
                "Only these streams: ids, in which * stands for anything, with commas",
            ),
            MARK_KIND,
            MARK_TEXT,
            START,
            END,
            ORDER,
            LIMIT,
            query("after", r#"{"type":"string"}"#, "The \"next\" of the page before"),
        ],
        &[answer(200, "A page of marks", of::<MarkPage>)],
    ),
    get(
        "/api/objects",
        "searchObjects",
        "inference",
        "Objects that were seen, of all streams or some, by when they were first seen",
        &[
            query(
                "stream",
                r#"{"type":"string"}"#,
                "Only these streams: ids, in which * stands for anything, with commas",
            ),
            query("label", r#"{"type":"string"}"#, "Only what is one of these, with commas"),
            query("zone", r#"{"type":"string"}"#, "Only what has been in one of these zones, with commas"),
            query(
                "min_score",
                r#"{"type":"number","minimum":0,"maximum":1}"#,
                "The score that the best picture has to have",
            ),
            START,
            END,
            query(
                "order",
                r#"{"type":"string","enum":["oldest","newest"],"default":"newest"}"#,
                "Which come first",
            ),
            LIMIT,
            query("after", r#"{"type":"string"}"#, "The \"next\" of the page before"),
        ],
        &[answer(200, "A page of objects", of::<ObjectPage>)],
    ),
    get(
        "/api/objects/{object}",
        "getObject",
        "inference",
        "An object that was seen",
        &[],
        &[answer(200, "The object", of::<ObjectView>)],
    ),
    get(
        "/api/objects/{object}/picture.jpg",
        "getObjectPicture",
        "inference",
        "The best picture of an object",
        &[],
        PICTURE,
    ),
    Operation {
        method: "delete",
        path: "/api/objects/{object}",
        id: "forgetObject",
        tag: "inference",
        summary: "Forgets an object; what was recorded of it stays",
        parameters: &[],
        body: None,
        answers: &[empty(204, "It is gone")],
    },
    get(
        "/api/counts",
        "getCounts",
        "inference",
        "How often objects have come into a stream's zones, stayed too long in them, crossed its lines, hour by hour",
        &[
            needed("stream", r#"{"type":"string","minLength":1}"#, "The stream's id"),
            query("place", r#"{"type":"string"}"#, "Only these zones and lines, with commas"),
            START,
            END,
        ],
        &[answer(200, "Counts", of::<CountPage>)],
    ),
    get(
        "/api/heat",
        "getHeat",
        "inference",
        "Where a stream's objects went",
        &[
            needed("stream", r#"{"type":"string","minLength":1}"#, "The stream's id"),
            query("zone", r#"{"type":"string"}"#, "Only what lies in this zone of it, as that is now"),
            START,
            END,
        ],
        &[answer(200, "A grid of the picture", of::<HeatMap>)],
    ),
    get(
        "/api/streams/{id}/marks",
        "listMarks",
        "recordings",
        "What is marked in a stream's recordings",
        &[
            MARK_KIND,
            MARK_TEXT,
            START,
            END,
            ORDER,
            LIMIT,
            query("after", r#"{"type":"string"}"#, "The \"next\" of the page before"),
        ],
        &[answer(200, "A page of marks", of::<MarkPage>)],
    ),
    Operation {
        method: "post",
        path: "/api/streams/{id}/marks",
        id: "addMark",
        tag: "recordings",
        summary: "Marks something in a stream's recordings",
        parameters: &[],
        body: Some((BODY, of::<NewMark>)),
        answers: &[answer(201, "The mark", of::<MarkRow>)],
    },
    Operation {
        method: "delete",
        path: "/api/streams/{id}/marks/{number}",
        id: "removeMark",
        tag: "recordings",
        summary: "Takes a mark away",
        parameters: &[],
        body: None,
        answers: &[empty(204, "It is gone")],
    },
    Operation {
        method: "post",
        path: "/api/streams/{id}/exports",
        id: "beginExport",
        tag: "recordings",
        summary: "Begins to write a span of recordings into a file, which stays until it is deleted",
        parameters: &[],
        body: Some((BODY, of::<NewExport>)),
        answers: &[answer(202, "The export", of::<ExportInfo>)],
    },
    get(
        "/api/streams/{id}/exports",
        "listStreamExports",
        "recordings",
        "A stream's exports",
        &[LIMIT, query("after", r#"{"type":"string"}"#, "The \"next\" of the page before")],
        &[answer(200, "A page of exports", of::<ExportPage>)],
    ),
    get(
        "/api/exports",
        "listExports",
        "recordings",
        "All exports, as they were asked for",
        &[LIMIT, query("after", r#"{"type":"string"}"#, "The \"next\" of the page before")],
        &[answer(200, "A page of exports", of::<ExportPage>)],
    ),
    get(
        "/api/exports/{name}",
        "getExport",
        "recordings",
        "How far an export is, and what came of it",
        &[],
        &[answer(200, "The export", of::<ExportInfo>)],
    ),
    Operation {
        method: "delete",
        path: "/api/exports/{name}",
        id: "deleteExport",
        tag: "recordings",
        summary: "Gives an export up if it is under way, and deletes its file",
        parameters: &[],
        body: None,
        answers: &[empty(204, "It is gone")],
    },
    get(
        "/api/exports/{name}/file",
        "getExportFile",
        "recordings",
        "An export's file, which can be had in pieces (Range)",
        &[],
        PIECES,
    ),
    get(
        "/api/backups",
        "listBackups",
        "system",
        "Backups, the oldest first",
        &[LIMIT, query("after", r#"{"type":"string"}"#, "The \"next\" of the page before")],
        &[answer(200, "A page of backups", of::<BackupPage>)],
    ),
    post(
        "/api/backups",
        "beginBackup",
        "system",
        "Begins to make a backup",
        &[query(
            "include",
            r#"{"type":"string","pattern":"^(config|state|index|recordings)(,(config|state|index|recordings))*$"}"#,
            "Of what, with commas between; as the configuration says if not given",
        )],
        &[answer(202, "The backup", of::<BackupInfo>)],
    ),
    get(
        "/api/backups/{name}",
        "getBackup",
        "system",
        "How far a backup is, and what came of it",
        &[],
        &[answer(200, "The backup", of::<BackupInfo>)],
    ),
    Operation {
        method: "delete",
        path: "/api/backups/{name}",
        id: "deleteBackup",
        tag: "system",
        summary: "Gives a backup up if it is being made, and deletes it",
        parameters: &[],
        body: None,
        answers: &[empty(204, "It is gone")],
    },
    get(
        "/api/backups/{name}/file",
        "getBackupFile",
        "system",
        "A backup's archive, which can be had in pieces (Range)",
        &[],
        ARCHIVE,
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
        "Whether it is ready for requests, and how its parts are; with reasons for those who may see everything",
        &[],
        &[
            answer(200, "It is, if perhaps not as it should be", of::<HealthReport>),
            answer(503, "It is not", of::<HealthReport>),
        ],
    ),
    get(
        "/health/streams/{id}",
        "getStreamHealth",
        "system",
        "Whether a stream can be had",
        &[],
        &[
            answer(200, "It can, or is about to", of::<StreamHealth>),
            answer(503, "It cannot", of::<StreamHealth>),
        ],
    ),
    get(
        "/metrics",
        "getMetrics",
        "system",
        "What Prometheus scrapes; OpenMetrics text if that is accepted",
        &[],
        &[Answer {
            status: 200,
            text: "All metrics",
            body: Some(("text/plain", text)),
            also: Some(("application/openmetrics-text", text)),
            etag: false,
        }],
    ),
];

/// Those of the feature `inference`.
/// Lengths of time may be written in other units, too.
const SECONDS: &str = r#"{"type":"string","pattern":"^[1-9][0-9]{0,3}s$","examples":["30s"]}"#;
const DURATION: Parameter = query("duration", SECONDS, "How long, instead of an end");
const FORMAT: Parameter = query(
    "format",
    r#"{"type":"string","enum":["fmp4","mp4","ts","mkv"],"default":"fmp4"}"#,
    "The container",
);
const GAPS: Parameter = query(
    "gaps",
    r#"{"type":"string","enum":["skip","stop"],"default":"skip"}"#,
    "Where something is missing: time closes up over it, or the file ends",
);
const MARK_KIND: Parameter = query("kind", r#"{"type":"string"}"#, "Only these kinds, with commas");
const MARK_TEXT: Parameter = query("text", r#"{"type":"string"}"#, "Only those with this in their text");
const ORDER: Parameter =
    query("order", r#"{"type":"string","enum":["oldest","newest"],"default":"oldest"}"#, "Which come first");
/// A video that can be had in pieces.
/// Makers of clients know nothing of archives but that they are bytes.
const ARCHIVE: &[Answer] = &[
    Answer {
        status: 200,
        text: "The whole archive",
        body: Some(("application/octet-stream", binary)),
        also: Some(("application/gzip", binary)),
        etag: true,
    },
    Answer {
        status: 206,
        text: "A piece of it",
        body: Some(("application/octet-stream", binary)),
        also: Some(("application/gzip", binary)),
        etag: true,
    },
    empty(304, "It is still the same"),
    empty(416, "There is no such piece"),
];
const PIECES: &[Answer] = &[
    Answer { status: 200, text: "The whole file", body: Some(("video/mp4", binary)), also: None, etag: true },
    Answer { status: 206, text: "A piece of it", body: Some(("video/mp4", binary)), also: None, etag: true },
    empty(304, "It is still the same"),
    empty(416, "There is no such piece"),
];
const QUALITY: Parameter =
    query("quality", r#"{"type":"integer","minimum":1,"maximum":100,"default":85}"#, "Of the JPEG");
/// Makers of clients know nothing of images but that they are bytes.
const PICTURE: &[Answer] = &[Answer {
    status: 200,
    text: "A JPEG",
    body: Some(("application/octet-stream", binary)),
    also: Some(("image/jpeg", binary)),
    etag: false,
}];

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
        "/api/streams/{id}/detections",
        "getDetections",
        "inference",
        "What is seen in each analysed picture, with the picture's time on the timeline of what is played: by WebSocket if the \
         request asks for one, as server-sent events otherwise",
        &[],
        &[Answer {
            status: 200,
            text: "What is seen, without an end: events `detections`, whose data are those of the schema Detections, and `missed`",
            body: Some(("text/event-stream", server_sent_event)),
            also: None,
            etag: false,
        }],
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
