//! Who may do what, by which credentials.

use super::*;
use crate::auth::{NewAccount, NewToken, PasswordHash, Role, SignedAddress};
use crate::frame::WallTime;

async fn ask(
    users: &Users,
    action: Action,
    subject: Subject<'_>,
    from: &str,
    credentials: Credentials,
) -> Result<Grant, Denied> {
    with_query(users, action, subject, from, credentials, None).await
}

async fn with_query(
    users: &Users,
    action: Action,
    subject: Subject<'_>,
    from: &str,
    credentials: Credentials,
    query: Option<&str>,
) -> Result<Grant, Denied> {
    let access = Access {
        action,
        subject,
        address: from.parse().unwrap(),
        protocol: "rtsp",
        query,
        user_agent: None,
        credentials: &credentials,
    };
    users.authorize(&access).await
}

fn pattern(text: &str) -> PathPattern {
    text.parse().unwrap()
}

const FROM: &str = "192.0.2.1";
const A: Subject<'_> = Subject::Stream("a");

#[tokio::test]
async fn before_the_first_user_watching_is_open_and_the_rest_local() {
    let users = Users::new([]);
    assert!(users.is_open());
    let grant = ask(&users, Action::Read, A, FROM, Credentials::None).await.unwrap();
    assert!(grant.may(Action::Read, Some("b")) && !grant.may(Action::ApiRead, Some("a")));
    for local in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
        for action in Action::ALL {
            for subject in [A, Subject::Server, Subject::Streams] {
                let grant = ask(&users, action, subject, local, Credentials::None).await.unwrap();
                assert!(grant.may_all(Action::Admin));
            }
        }
    }
    for action in Action::ALL.into_iter().filter(|a| *a != Action::Read) {
        for subject in [A, Subject::Server, Subject::Streams] {
            let denied = ask(&users, action, subject, FROM, Credentials::None).await;
            assert_eq!(denied, Err(Denied::NotSetUp), "{action} {subject:?}");
        }
    }
    users.replace(&UsersOptions { open_viewing: false, ..UsersOptions::default() }).unwrap();
    assert_eq!(ask(&users, Action::Read, A, FROM, Credentials::None).await, Err(Denied::NotSetUp));
}

#[tokio::test]
async fn users_may_what_the_list_says() {
    let users = Users::new([
        User::new("viewer", Secret::new("v")).read([pattern("*")]),
        User::new("camera", Secret::new("c")).publish([pattern("cam/*")]),
    ]);
    let as_user = Credentials::password;
    let x = Subject::Stream("x");
    assert_eq!(ask(&users, Action::Read, x, FROM, Credentials::None).await, Err(Denied::Anonymous));
    // Not even from here.
    assert_eq!(ask(&users, Action::Read, x, "127.0.0.1", Credentials::None).await, Err(Denied::Anonymous));
    let grant = ask(&users, Action::Read, x, FROM, as_user("viewer", "v")).await.unwrap();
    assert_eq!(grant.user.as_deref(), Some("viewer"));
    let cam = Subject::Stream("cam/1");
    assert!(ask(&users, Action::Publish, cam, FROM, as_user("camera", "c")).await.is_ok());
    for (action, subject, user, password) in [
        (Action::Publish, x, "camera", "c"),
        (Action::Publish, cam, "viewer", "v"),
        (Action::Read, x, "camera", "c"),
        (Action::ApiRead, Subject::Streams, "viewer", "v"),
        (Action::Admin, Subject::Server, "viewer", "v"),
    ] {
        let denied = ask(&users, action, subject, FROM, as_user(user, password)).await;
        assert!(matches!(denied, Err(Denied::Forbidden { .. })), "{denied:?}");
    }
    for _ in 0..ALLOWED_FAILURES {
        let denied = ask(&users, Action::Read, x, FROM, as_user("viewer", "w")).await;
        assert_eq!(denied, Err(Denied::WrongCredentials));
    }
    let denied = ask(&users, Action::Read, x, FROM, as_user("viewer", "v")).await;
    assert!(matches!(denied, Err(Denied::Limited { .. })), "{denied:?}");
    assert!(ask(&users, Action::Read, x, "192.0.2.2", as_user("viewer", "v")).await.is_ok());
    assert!(users.takes_digest());
}

#[tokio::test]
async fn accounts_tokens_anonymous_and_signed_addresses() {
    let accounts = Arc::new(Accounts::in_memory().unwrap());
    let anonymous = vec![Permission::new([Action::Read]).streams([pattern("public")])];
    let options = UsersOptions {
        users: vec![User::new("old", Secret::new("o")).read([pattern("a")])],
        anonymous,
        ..UsersOptions::default()
    };
    let users = Users::with(&options, Some(accounts.clone())).unwrap();
    assert!(users.takes_digest());
    let hash = PasswordHash::of(&Secret::new("geheim")).unwrap();
    let permissions = vec![Role::Viewer.permission(vec![pattern("yard/*")])];
    accounts.add_user(&NewAccount { name: "ann".into(), hash, permissions }).unwrap();
    assert!(!users.takes_digest(), "of a hash no answer to a challenge can be proved");
    let door = Subject::Stream("yard/door");
    let as_ann = || Credentials::password("ann", "geheim");
    let grant = ask(&users, Action::ApiRead, Subject::Streams, FROM, as_ann()).await.unwrap();
    assert!(grant.may(Action::ApiRead, Some("yard/door")) && !grant.may(Action::ApiRead, Some("a")));
    assert!(grant.may(Action::Read, Some("public")) && !grant.may_all(Action::ApiRead));
    assert!(ask(&users, Action::ApiRead, Subject::Server, FROM, as_ann()).await.is_err());
    assert!(ask(&users, Action::Read, Subject::Stream("public"), FROM, Credentials::None).await.is_ok());
    assert_eq!(ask(&users, Action::Read, door, FROM, Credentials::None).await, Err(Denied::Anonymous));
    // A token: as bearer, as password of whatever name, in the query.
    let new = NewToken {
        name: "t".into(),
        user: Some("ann".into()),
        permissions: None,
        expires: None,
        session: false,
    };
    let (info, token) = accounts.add_token(&new).unwrap();
    let shown = token.reveal().to_owned();
    for credentials in [Credentials::Token(token.clone()), Credentials::password("x", &shown)] {
        let grant = ask(&users, Action::Read, door, FROM, credentials).await.unwrap();
        assert_eq!(grant.user.as_deref(), Some("ann"));
    }
    let query = format!("x=1&token={shown}");
    assert!(with_query(&users, Action::Read, door, FROM, Credentials::None, Some(&query)).await.is_ok());
    let wrong = Some("token=smt_1_2");
    let denied = with_query(&users, Action::Read, door, FROM, Credentials::None, wrong).await;
    assert_eq!(denied, Err(Denied::WrongCredentials));
    accounts.remove_token(&info.id).unwrap();
    let denied = ask(&users, Action::Read, door, FROM, Credentials::Token(token)).await;
    assert_eq!(denied, Err(Denied::WrongCredentials));
    // A signed address is good for one thing.
    let expires = WallTime::now() + Duration::from_secs(60);
    let address =
        SignedAddress { action: Action::Read, stream: "yard/door".into(), expires, user: Some("ann".into()) };
    let query = accounts.signer().sign(&address).unwrap();
    let signed = |action, subject| with_query(&users, action, subject, FROM, Credentials::None, Some(&query));
    let grant = signed(Action::Read, door).await.unwrap();
    assert!(grant.user.as_deref() == Some("ann") && !grant.may(Action::Read, Some("a")));
    assert!(signed(Action::Playback, door).await.is_err() && signed(Action::Read, A).await.is_err());
    // Somebody who is disabled is nobody.
    let other = PasswordHash::of(&Secret::new("x")).unwrap();
    let permissions = vec![Role::Admin.permission(vec![])];
    accounts.add_user(&NewAccount { name: "root".into(), hash: other, permissions }).unwrap();
    accounts.change_user("ann", None, None, Some(true)).unwrap();
    assert_eq!(ask(&users, Action::Read, door, FROM, as_ann()).await, Err(Denied::WrongCredentials));
}
