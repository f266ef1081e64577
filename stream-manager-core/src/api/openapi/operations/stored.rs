//! Operations on pictures, marks, exports and playback: what is made of what was recorded.

use super::super::parts::*;
use crate::api::exports::{ExportPage, NewExport};
use crate::api::marks::{MarkPage, NewMark};
use crate::api::playback::TimelineView;
use crate::manager::ExportInfo;
use crate::storage::index::MarkRow;

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
const PIECES: &[Answer] = &[
    Answer { status: 200, text: "The whole file", body: Some(("video/mp4", binary)), also: None, etag: true },
    Answer { status: 206, text: "A piece of it", body: Some(("video/mp4", binary)), also: None, etag: true },
    empty(304, "It is still the same"),
    empty(416, "There is no such piece"),
];
const QUALITY: Parameter =
    query("quality", r#"{"type":"integer","minimum":1,"maximum":100,"default":85}"#, "Of the JPEG");

pub(super) const STORED: &[Operation] = &[
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
];
