//! Operations on how streams are recorded, and on what there is of it.

use super::super::parts::*;
use crate::api::recordings::{Deleted, Protected, RecordingsPage};
use crate::api::view::RecordingView;
use crate::manager::StorageReport;

const RECORDING: &[Answer] = &[answer(200, "The recording", of::<RecordingView>)];

pub(super) const RECORDINGS: &[Operation] = &[
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
        "Finishes the file, which can be found when this is answered, and records no longer; also after a restart",
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
        "/api/storage",
        "getStorage",
        "recordings",
        "The disks, what is on them, how long they will do",
        &[],
        &[answer(200, "The disks", of::<StorageReport>)],
    ),
];
