//! The operations about who may do what.

use super::super::accounts::{
    AuditPage, LogIn, MadeToken, Me, NewApiToken, NewSignature, NewUser, SetUp, SetupState, Signature,
    TokenPage, UserPage, UserPatch,
};
use super::parts::*;
use crate::auth::Account;

const fn with_body(
    (method, path): (&'static str, &'static str),
    id: &'static str,
    summary: &'static str,
    body: (&'static [&'static str], Shape),
    answers: &'static [Answer],
) -> Operation {
    Operation { method, path, id, tag: "access", summary, parameters: &[], body: Some(body), answers }
}

const GONE: &[Answer] = &[empty(204, "It is gone")];

const fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Operation {
    Operation {
        method: "delete",
        path,
        id,
        tag: "access",
        summary,
        parameters: &[],
        body: None,
        answers: GONE,
    }
}

pub(super) const ACCOUNTS: &[Operation] = &[
    get(
        "/api/setup",
        "getSetup",
        "access",
        "Whether the first user is still to be made",
        &[],
        &[answer(200, "Whether it is", of::<SetupState>)],
    ),
    with_body(
        ("post", "/api/setup"),
        "setUp",
        "Makes the first user, who may do everything, and logs in",
        (BODY, of::<SetUp>),
        &[answer(201, "The user", of::<Account>)],
    ),
    with_body(
        ("post", "/api/login"),
        "logIn",
        "Logs a browser in: a cookie that scripts cannot read",
        (BODY, of::<LogIn>),
        &[answer(200, "It is logged in", anything)],
    ),
    post("/api/logout", "logOut", "access", "Ends a browser's session", &[], &[empty(204, "It is over")]),
    get(
        "/api/me",
        "getMe",
        "access",
        "Who asks, and what they may",
        &[],
        &[answer(200, "Who it is", of::<Me>)],
    ),
    get("/api/users", "listUsers", "access", "The users", &[], &[answer(200, "All users", of::<UserPage>)]),
    with_body(
        ("post", "/api/users"),
        "createUser",
        "Makes a user",
        (BODY, of::<NewUser>),
        &[answer(201, "The user", of::<Account>)],
    ),
    get("/api/users/{name}", "getUser", "access", "One user", &[], &[answer(200, "The user", of::<Account>)]),
    with_body(
        ("patch", "/api/users/{name}"),
        "patchUser",
        "Changes a user's password, permissions, or whether the user may do anything",
        (PATCH, of::<UserPatch>),
        &[answer(200, "The user", of::<Account>)],
    ),
    delete("/api/users/{name}", "deleteUser", "Takes a user away, with the user's tokens and sessions"),
    get("/api/tokens", "listTokens", "access", "The API tokens", &[], &[answer(200, "All", of::<TokenPage>)]),
    with_body(
        ("post", "/api/tokens"),
        "createToken",
        "Makes an API token, which is shown this once",
        (BODY, of::<NewApiToken>),
        &[answer(201, "The token", of::<MadeToken>)],
    ),
    delete("/api/tokens/{id}", "deleteToken", "Takes a token away"),
    get(
        "/api/audit",
        "getAudit",
        "access",
        "Who has changed what, newest first",
        &[
            LIMIT,
            query(
                "after",
                r#"{"type":"integer","minimum":0,"maximum":18446744073709551615}"#,
                "The \"next\" of the page before",
            ),
            query("user", r#"{"type":"string"}"#, "Only by this user"),
        ],
        &[answer(200, "A page of changes", of::<AuditPage>)],
    ),
    with_body(
        ("post", "/api/streams/{id}/sign"),
        "signStream",
        "Makes addresses of a stream that are good for a while without credentials",
        (BODY, of::<NewSignature>),
        &[answer(201, "What makes them so", of::<Signature>)],
    ),
];
