//! API tokens, and the sessions of browsers, which are tokens too.

use super::database::{HeldToken, json};
use super::records::{AccountError, NewToken, TokenInfo, check_name, check_permissions, invalid};
use super::{Accounts, MAX_ENTRIES};
use crate::auth::token::Token;
use crate::auth::{Permission, Secret};
use crate::frame::WallTime;
use rusqlite::params;
use std::sync::Arc;
use std::time::Duration;

/// When a token was used last is written so often.
const USED_EVERY: Duration = Duration::from_secs(60);

/// Who somebody is that has shown a token.
pub(in crate::auth) struct TokenOwner {
    pub(in crate::auth) name: String,
    pub(in crate::auth) permissions: Arc<[Permission]>,
}

impl Accounts {
    /// Makes a token. Its text is given this once and kept nowhere.
    ///
    /// # Errors
    /// If the name is wrong, or the user does not exist.
    pub fn add_token(&self, new: &NewToken) -> Result<(TokenInfo, Secret), AccountError> {
        check_name("name", &new.name)?;
        check_permissions(new.permissions.as_deref().unwrap_or_default())?;
        if new.user.is_none() && new.permissions.is_none() {
            return Err(invalid("permissions", "a token of no user needs permissions of its own"));
        }
        let now = WallTime::now();
        if new.expires.is_some_and(|expires| expires <= now) {
            return Err(invalid("expires", "it is in the past"));
        }
        let token = Token::new();
        self.change(|transaction| {
            transaction.execute("DELETE FROM tokens WHERE expires < ?1", [now.as_unix_nanos()])?;
            let count: i64 = transaction.query_row("SELECT COUNT(*) FROM tokens", [], |row| row.get(0))?;
            if count >= MAX_ENTRIES as i64 {
                // Sessions come by themselves and must not stand in anybody's way.
                let oldest = "DELETE FROM tokens WHERE id = (SELECT id FROM tokens WHERE session = 1 ORDER BY created LIMIT 1)";
                if transaction.execute(oldest, [])? == 0 {
                    return Err(invalid("name", format!("there are {MAX_ENTRIES} tokens already")).into());
                }
            }
            transaction.execute(
                "INSERT INTO tokens VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, NULL)",
                params![
                    token.id,
                    token.hash(),
                    new.name,
                    new.user,
                    new.session,
                    new.permissions.as_deref().map(json),
                    now.as_unix_nanos(),
                    new.expires.map(|expires| expires.as_unix_nanos()),
                ],
            )?;
            Ok(())
        })?;
        let info = TokenInfo {
            id: token.id.clone(),
            name: new.name.clone(),
            user: new.user.clone(),
            permissions: new.permissions.clone(),
            created: now,
            expires: new.expires,
            used: None,
            session: new.session,
        };
        Ok((info, token.text()))
    }

    /// All tokens, newest first.
    pub fn tokens(&self) -> Vec<TokenInfo> {
        let held = self.held.read().clone();
        let used = self.used.lock();
        let with_use = |token: &HeldToken| {
            let mut info = token.info.clone();
            info.used = used.get(&info.id).copied().or(info.used);
            info
        };
        let mut tokens: Vec<TokenInfo> = held.tokens.values().map(with_use).collect();
        tokens.sort_by(|a, b| b.created.cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
        tokens
    }

    /// Takes a token away.
    ///
    /// # Errors
    /// If there is none.
    pub fn remove_token(&self, id: &str) -> Result<(), AccountError> {
        self.change(|transaction| {
            if transaction.execute("DELETE FROM tokens WHERE id = ?1", [id])? == 0 {
                return Err(AccountError::NotFound { what: "token", name: id.to_owned() }.into());
            }
            Ok(())
        })
    }

    /// The id of a token by its text, if it is one of ours.
    pub fn token_id(&self, text: &Secret) -> Option<String> {
        let token = Token::parse(text.reveal())?;
        let held = self.held.read().clone();
        let known = held.tokens.get(&token.id).filter(|known| token.verify(&known.hash))?;
        Some(known.info.id.clone())
    }

    /// Whose a token is and what it may, if it is good now. `permissions` gives what users of elsewhere may.
    pub(in crate::auth) fn token(
        &self,
        text: &Secret,
        permissions: impl FnOnce(&str) -> Option<Arc<[Permission]>>,
    ) -> Option<TokenOwner> {
        let token = Token::parse(text.reveal())?;
        let held = self.held.read().clone();
        let known = held.tokens.get(&token.id).filter(|known| token.verify(&known.hash))?;
        let now = WallTime::now();
        if known.info.expires.is_some_and(|expires| expires <= now) {
            return None;
        }
        let of_user = match &known.info.user {
            None => None,
            Some(name) => Some(match held.users.get(name) {
                Some(user) if user.account.disabled => return None,
                Some(user) => user.permissions.clone(),
                None => permissions(name)?,
            }),
        };
        let permissions = known.permissions.clone().or(of_user)?;
        self.used.lock().insert(token.id, now);
        let name = known.info.user.clone().unwrap_or_else(|| format!("token {}", known.info.name));
        Some(TokenOwner { name, permissions })
    }

    /// Writes down which tokens were used. To be called now and then.
    ///
    /// # Errors
    /// If the database refuses.
    pub fn write_use(&self) -> Result<(), AccountError> {
        let used: Vec<(String, WallTime)> = {
            let held = self.held.read().clone();
            let is_newer = |id: &str, time: WallTime| {
                held.tokens.get(id).is_some_and(|t| {
                    t.info.used.is_none_or(|before| time.saturating_since(before) >= USED_EVERY)
                })
            };
            let mut used = self.used.lock();
            used.retain(|id, _| held.tokens.contains_key(id));
            used.iter()
                .filter(|(id, time)| is_newer(id, **time))
                .map(|(id, time)| (id.clone(), *time))
                .collect()
        };
        if used.is_empty() {
            return Ok(());
        }
        self.change(|transaction| {
            for (id, time) in &used {
                transaction.execute(
                    "UPDATE tokens SET used = ?2 WHERE id = ?1",
                    params![id, time.as_unix_nanos()],
                )?;
            }
            Ok(())
        })
    }
}
