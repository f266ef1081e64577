//! Operations on who watches, and on what happens.

use super::super::parts::*;
use crate::api::sessions::{Ended, SessionPage};
use crate::api::system::{HookPage, HookTest};
use crate::session::SessionInfo;

pub(super) const WATCHING: &[Operation] = &[
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
];
