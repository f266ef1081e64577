//! Operations on settings, backups, the program and the machine.

use super::super::parts::*;
use crate::api::backups::BackupPage;
#[cfg(feature = "onvif")]
use crate::api::discover::{DiscoverRequest, DiscoverView};
use crate::api::health::Health;
use crate::api::logs::LogPage;
use crate::api::openapi;
use crate::api::settings::Applied;
use crate::api::system::{ProbeRequest, ProbeView};
use crate::health::{HealthReport, StreamHealth};
use crate::manager::{BackupInfo, ConfigStatus, SystemReport};

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

pub(super) const SYSTEM: &[Operation] = &[
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
