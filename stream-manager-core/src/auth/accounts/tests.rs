use super::*;
use crate::auth::{Action, Role, Secret};

fn hash() -> PasswordHash {
    PasswordHash::of(&Secret::new("geheim")).unwrap()
}

fn user(name: &str, role: Role) -> NewAccount {
    NewAccount {
        name: name.into(),
        hash: hash(),
        permissions: vec![role.permission(vec!["*".parse().unwrap()])],
    }
}

#[test]
fn what_one_process_writes_another_sees() {
    let folder = tempfile::tempdir().unwrap();
    let server = Accounts::open(folder.path()).unwrap();
    let program = Accounts::open(folder.path()).unwrap();
    assert!(server.is_empty() && !server.refresh().unwrap());
    program.add_user(&user("ann", Role::Viewer)).unwrap();
    assert!(matches!(program.add_user(&user("ann", Role::Viewer)), Err(AccountError::Exists(_))));
    assert!(server.user("ann").is_none() && server.refresh().unwrap() && !server.refresh().unwrap());
    assert_eq!(server.user("ann").unwrap().permissions[0].actions, Role::Viewer.actions());
    // The key is the same for both, and only the owner may read it.
    let address = crate::auth::SignedAddress {
        action: Action::Read,
        stream: "a".into(),
        expires: WallTime::now() + Duration::from_secs(9),
        user: None,
    };
    let query = program.signer().sign(&address).unwrap();
    assert!(server.signer().verify(&query, Action::Read, "a").is_some());
    use std::os::unix::fs::PermissionsExt as _;
    for file in std::fs::read_dir(folder.path()).unwrap() {
        assert_eq!(file.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
}

#[test]
fn the_last_admin_stays() {
    let accounts = Accounts::in_memory().unwrap();
    accounts.add_user(&user("ann", Role::Admin)).unwrap();
    accounts.add_user(&user("bob", Role::Viewer)).unwrap();
    let viewer = [Role::Viewer.permission(vec!["*".parse().unwrap()])];
    for refused in [
        accounts.remove_user("ann"),
        accounts.change_user("ann", None, None, Some(true)).map(drop),
        accounts.change_user("ann", None, Some(&viewer), None).map(drop),
    ] {
        assert!(matches!(refused, Err(AccountError::LastAdmin(_))), "{refused:?}");
    }
    assert!(matches!(accounts.remove_user("cal"), Err(AccountError::NotFound { .. })));
    accounts.add_user(&user("cal", Role::Admin)).unwrap();
    accounts.remove_user("ann").unwrap();
    accounts.remove_user("bob").unwrap();
    accounts.remove_user("cal").unwrap();
    assert!(accounts.is_empty());
    accounts.add_first_user(&user("dan", Role::Admin)).unwrap();
    assert!(matches!(accounts.add_first_user(&user("eve", Role::Admin)), Err(AccountError::Exists(_))));
    for name in ["", "a:b", " a", "a\nb", &"x".repeat(65)] {
        let refused = accounts.add_user(&user(name, Role::Viewer));
        assert!(matches!(refused, Err(AccountError::Invalid { field: "name", .. })), "{name:?}");
    }
}

#[test]
fn the_last_admin_stays_whoever_writes() {
    let folder = tempfile::tempdir().unwrap();
    let server = Accounts::open(folder.path()).unwrap();
    for (name, role) in [("ann", Role::Admin), ("bob", Role::Admin), ("cal", Role::Viewer)] {
        server.add_user(&user(name, role)).unwrap();
    }
    Accounts::open(folder.path()).unwrap().remove_user("ann").unwrap();
    assert!(matches!(server.remove_user("bob"), Err(AccountError::LastAdmin(_))));
    assert!(matches!(server.change_user("bob", None, None, Some(true)), Err(AccountError::LastAdmin(_))));
}

#[test]
fn tokens_end() {
    let accounts = Accounts::in_memory().unwrap();
    accounts.add_user(&user("ann", Role::Viewer)).unwrap();
    let new = |user: Option<&str>, permissions, expires| NewToken {
        name: "script".into(),
        user: user.map(Into::into),
        permissions,
        expires,
        session: false,
    };
    let nobody = |_: &str| None;
    let soon = WallTime::now() + Duration::from_millis(300);
    let (info, text) = accounts.add_token(&new(Some("ann"), None, None)).unwrap();
    let (_, brief) = accounts.add_token(&new(Some("ann"), None, Some(soon))).unwrap();
    let own = vec![Permission::new([Action::Metrics])];
    let (_, alone) = accounts.add_token(&new(None, Some(own), None)).unwrap();
    assert!(accounts.add_token(&new(None, None, None)).is_err());
    let owner = accounts.token(&text, nobody).unwrap();
    assert_eq!(
        (owner.name.as_str(), owner.permissions[0].actions.as_slice()),
        ("ann", Role::Viewer.actions())
    );
    assert_eq!(accounts.token(&alone, nobody).unwrap().name, "token script");
    assert!(accounts.token(&brief, nobody).is_some());
    std::thread::sleep(Duration::from_millis(350));
    assert!(accounts.token(&brief, nobody).is_none(), "it has expired");
    let mut changed = text.reveal().to_owned();
    let last = changed.pop().unwrap();
    changed.push(if last == '0' { '1' } else { '0' });
    assert!(accounts.token(&Secret::new(changed), nobody).is_none());
    // When it was used is written down, and nothing of it is the token itself.
    accounts.write_use().unwrap();
    assert!(accounts.tokens().iter().any(|t| t.id == info.id && t.used.is_some()));
    accounts.change_user("ann", None, None, Some(true)).unwrap();
    assert!(accounts.token(&text, nobody).is_none(), "its user is disabled");
    accounts.change_user("ann", None, None, Some(false)).unwrap();
    assert!(accounts.token(&text, nobody).is_some());
    accounts.remove_token(&info.id).unwrap();
    assert!(accounts.token(&text, nobody).is_none());
    accounts.remove_user("ann").unwrap();
    assert_eq!(accounts.tokens().len(), 1);
    accounts.write_use().unwrap();
    assert!(accounts.used.lock().len() <= 1, "what was used is not remembered for longer than it exists");
}

#[test]
fn the_audit_log_is_bounded_and_searched() {
    let accounts = Accounts::in_memory().unwrap();
    for n in 0..5u16 {
        let entry = AuditEntry {
            number: 0,
            time: WallTime::now(),
            user: (n % 2 == 0).then(|| "ann".to_owned()),
            address: "192.0.2.1".into(),
            action: "DELETE".into(),
            target: format!("/api/streams/{n}"),
            status: 204,
            detail: None,
        };
        accounts.audit(&entry).unwrap();
    }
    let of = |user: Option<&str>, before, limit| {
        let filter = AuditFilter { user: user.map(Into::into), before, limit };
        accounts.audited(&filter).unwrap().iter().map(|e| e.number).collect::<Vec<_>>()
    };
    assert_eq!(of(None, None, 3), [5, 4, 3]);
    assert_eq!(of(None, Some(3), 3), [2, 1]);
    assert_eq!(of(Some("ann"), None, 9), [5, 3, 1]);
}
