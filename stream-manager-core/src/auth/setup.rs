//! The one-time code by which the first user is made from elsewhere than the server's own machine.

use super::{Secret, equal, random_text};
use parking_lot::Mutex;

/// A code that is good once, for as long as the process lives.
pub struct SetupCode(Mutex<Option<Secret>>);

impl SetupCode {
    /// A fresh one: `abcd-efgh-jkmn`, 60 bits.
    pub fn new() -> Self {
        let text = random_text::<12>();
        let shown: Vec<&str> = [0..4, 4..8, 8..12].into_iter().filter_map(|range| text.get(range)).collect();
        Self(Mutex::new(Some(Secret::new(shown.join("-")))))
    }

    /// The code, for the one who starts the server.
    pub fn reveal(&self) -> Option<Secret> {
        self.0.lock().clone()
    }

    /// Whether this is it.
    pub fn matches(&self, given: &Secret) -> bool {
        let given: String = given.reveal().trim().to_ascii_lowercase();
        self.0.lock().as_ref().is_some_and(|code| equal(code.reveal().as_bytes(), given.as_bytes()))
    }

    /// It is good no longer.
    pub fn spend(&self) {
        *self.0.lock() = None;
    }
}

impl Default for SetupCode {
    fn default() -> Self {
        Self::new()
    }
}

impl std::fmt::Debug for SetupCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_good_once() {
        let code = SetupCode::new();
        let text = code.reveal().unwrap();
        assert_eq!(text.reveal().len(), 14);
        assert!(code.matches(&Secret::new(format!(" {} ", text.reveal().to_uppercase()))));
        assert!(!code.matches(&Secret::new("")) && !code.matches(&SetupCode::new().reveal().unwrap()));
        code.spend();
        assert!(!code.matches(&text) && code.reveal().is_none());
    }
}
