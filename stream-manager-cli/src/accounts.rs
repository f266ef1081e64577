//! Users and API tokens, also beside a running server, which sees a change within a second.

use crate::args::{Place, Rights, TokenCommand, UserCommand};
use crate::recordings::data_dir;
use crate::{exit, output};
use std::io::{BufRead, IsTerminal};
use stream_manager_core::auth::{
    Account, AccountError, Accounts, NewAccount, NewToken, PasswordHash, PathPattern, Permission, Secret,
    TokenInfo,
};
use stream_manager_core::frame::WallTime;

type Failure = (u8, String);

fn failed(error: &AccountError) -> Failure {
    let code = match error {
        AccountError::Invalid { .. } | AccountError::Exists(_) | AccountError::NotFound { .. } => exit::USAGE,
        _ => exit::FAILURE,
    };
    (code, error.to_string())
}

fn said(done: Result<(), Failure>) -> u8 {
    match done {
        Ok(()) => 0,
        Err((code, problem)) => {
            output::error(&problem);
            code
        }
    }
}

fn open(place: &Place) -> Result<Accounts, Failure> {
    Accounts::open(&data_dir(place)?).map_err(|e| failed(&e))
}

/// A password: asked for twice at a terminal, or the first line of standard input.
fn password(confirm: bool) -> Result<Secret, Failure> {
    let problem = |e: std::io::Error| (exit::FAILURE, format!("the password cannot be read: {e}"));
    if !std::io::stdin().is_terminal() {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(problem)?;
        return Ok(Secret::new(line.trim_end_matches(['\r', '\n'])));
    }
    let first = rpassword::prompt_password("Password: ").map_err(problem)?;
    if confirm && rpassword::prompt_password("Again: ").map_err(problem)? != first {
        return Err((exit::USAGE, "these were two different passwords".into()));
    }
    Ok(Secret::new(first))
}

fn hashed() -> Result<PasswordHash, Failure> {
    PasswordHash::of(&password(true)?).map_err(|e| (exit::USAGE, e.to_string()))
}

fn permissions(rights: Rights) -> Vec<Permission> {
    let streams = if rights.streams.is_empty() { vec![PathPattern::everything()] } else { rights.streams };
    let of_role = rights.role.map(|role| role.permission(streams.clone()));
    let of_actions = (!rights.actions.is_empty()).then(|| Permission::new(rights.actions).streams(streams));
    let all = of_role.into_iter().chain(of_actions);
    all.map(|permission| permission.addresses(rights.from.iter().copied())).collect()
}

fn some(permissions: Vec<Permission>) -> Result<Vec<Permission>, Failure> {
    if permissions.is_empty() {
        return Err((exit::USAGE, "expected --role, --actions or both: what may be done?".into()));
    }
    Ok(permissions)
}

fn shown(permissions: &[Permission]) -> String {
    let one = |permission: &Permission| {
        let actions: Vec<&str> = permission.actions.iter().map(|action| action.name()).collect();
        let streams: Vec<&str> = permission.streams.iter().map(PathPattern::as_str).collect();
        let from = match serde_json::to_value(&permission.addresses) {
            Ok(serde_json::Value::Array(from)) if !from.is_empty() => {
                let from: Vec<&str> = from.iter().filter_map(serde_json::Value::as_str).collect();
                format!(" from {}", from.join(","))
            }
            _ => String::new(),
        };
        format!("{} with {}{from}", actions.join(","), streams.join(","))
    };
    permissions.iter().map(one).collect::<Vec<_>>().join("; ")
}

fn print_json(value: &impl serde::Serialize) {
    output::line(&serde_json::to_string_pretty(value).unwrap_or_default());
}

fn print_user(user: &Account) {
    let disabled = if user.disabled { " (disabled)" } else { "" };
    output::line(&format!("{}{disabled}: {}", user.name, shown(&user.permissions)));
}

fn print_token(token: &TokenInfo) {
    let may = token.permissions.as_deref().map_or_else(|| "what its user may".to_owned(), shown);
    let owner = token.user.as_deref().map(|user| format!(" of {user}")).unwrap_or_default();
    let until = token.expires.map(|until| format!(", until {until}")).unwrap_or_default();
    let used = token.used.map_or_else(|| ", never used".to_owned(), |used| format!(", last used {used}"));
    output::line(&format!("{} \"{}\"{owner}: {may}{until}{used}", token.id, token.name));
}

pub(crate) fn users(command: UserCommand) -> u8 {
    said(user(command))
}

fn user(command: UserCommand) -> Result<(), Failure> {
    let account = match command {
        UserCommand::Hash => {
            output::line(hashed()?.as_str());
            return Ok(());
        }
        UserCommand::List { json, place } => {
            let users = open(&place)?.users();
            if json {
                print_json(&users);
            } else {
                users.iter().for_each(print_user);
            }
            return Ok(());
        }
        UserCommand::Remove { name, place } => {
            open(&place)?.remove_user(&name).map_err(|e| failed(&e))?;
            output::line(&format!("{name} is gone"));
            return Ok(());
        }
        UserCommand::Add { name, rights, place } => {
            let permissions = some(permissions(rights))?;
            let accounts = open(&place)?;
            accounts.add_user(&NewAccount { name, hash: hashed()?, permissions })
        }
        UserCommand::Passwd { name, place } => {
            let accounts = open(&place)?;
            accounts.change_user(&name, Some(&hashed()?), None, None)
        }
        UserCommand::Allow { name, rights, place } => {
            let permissions = some(permissions(rights))?;
            open(&place)?.change_user(&name, None, Some(&permissions), None)
        }
        UserCommand::Disable { name, place } => open(&place)?.change_user(&name, None, None, Some(true)),
        UserCommand::Enable { name, place } => open(&place)?.change_user(&name, None, None, Some(false)),
    };
    print_user(&account.map_err(|e| failed(&e))?);
    Ok(())
}

pub(crate) fn tokens(command: TokenCommand) -> u8 {
    said(token(command))
}

fn token(command: TokenCommand) -> Result<(), Failure> {
    match command {
        TokenCommand::Add { name, user, rights, expires, place } => {
            let permissions = Some(permissions(rights)).filter(|permissions| !permissions.is_empty());
            let expires = expires.map(|lifetime| WallTime::now() + lifetime.0);
            let new = NewToken { name, user, permissions, expires, session: false };
            let (info, token) = open(&place)?.add_token(&new).map_err(|e| failed(&e))?;
            output::line(token.reveal());
            output::note(&format!("{}: keep it, it is not shown again", info.id));
        }
        TokenCommand::Remove { id, place } => {
            open(&place)?.remove_token(&id).map_err(|e| failed(&e))?;
            output::line(&format!("{id} is gone"));
        }
        TokenCommand::List { json, place } => {
            let tokens = open(&place)?.tokens();
            if json {
                print_json(&tokens);
            } else {
                tokens.iter().for_each(print_token);
            }
        }
    }
    Ok(())
}
