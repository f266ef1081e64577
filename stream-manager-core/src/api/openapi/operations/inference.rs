//! Operations on what is seen in pictures.

use super::super::parts::*;
#[cfg(feature = "inference")]
use crate::api::inference::{AnalysisView, ModelPage};
use crate::api::objects::{CountPage, ObjectPage, ObjectView};
#[cfg(feature = "inference")]
use crate::api::openapi;
#[cfg(feature = "inference")]
use crate::detection::Detections;
#[cfg(feature = "inference")]
use crate::inference::ModelStatus;
use crate::storage::objects::HeatMap;

pub(super) const OBJECTS: &[Operation] = &[
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
];

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
