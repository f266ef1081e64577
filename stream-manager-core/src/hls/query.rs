//! What players add to a playlist's address (RFC 8216bis section 6.2.5).

/// A wrong query.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name} is \"{value}\"; expected {expected}")]
pub struct QueryError {
    /// The parameter.
    pub name: &'static str,
    /// What it is.
    pub value: String,
    /// What would be right.
    pub expected: &'static str,
}

/// `_HLS_msn`, `_HLS_part` and `_HLS_skip`. Other parameters are none of ours and pass.
///
/// ```
/// # use stream_manager_core::hls::ReloadQuery;
/// let query = ReloadQuery::parse("_HLS_msn=7&_HLS_part=2").unwrap();
/// assert_eq!((query.number, query.part, query.skip), (Some(7), Some(2), false));
/// assert!(ReloadQuery::parse("_HLS_part=2").is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReloadQuery {
    /// The segment that the playlist is to have.
    pub number: Option<u64>,
    /// The part of it.
    pub part: Option<usize>,
    /// Whether what the player knows already is to be left out.
    pub skip: bool,
}

impl ReloadQuery {
    /// Reads a query string.
    ///
    /// # Errors
    /// If a parameter is not what it should be, or a part comes without its segment.
    pub fn parse(query: &str) -> Result<Self, QueryError> {
        let mut parsed = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let wrong = |name, expected| QueryError {
                name,
                value: value.chars().take(40).flat_map(char::escape_debug).collect(),
                expected,
            };
            match &*name {
                "_HLS_msn" => {
                    let number = value.parse().map_err(|_| wrong("_HLS_msn", "a media sequence number"))?;
                    parsed.number = Some(number);
                }
                "_HLS_part" => {
                    let part = value.parse().map_err(|_| wrong("_HLS_part", "the index of a part"))?;
                    parsed.part = Some(part);
                }
                "_HLS_skip" => match &*value {
                    "YES" | "v2" => parsed.skip = true,
                    _ => return Err(wrong("_HLS_skip", "YES or v2")),
                },
                _ => {}
            }
        }
        match (parsed.number, parsed.part) {
            (None, Some(part)) => Err(QueryError {
                name: "_HLS_part",
                value: part.to_string(),
                expected: "_HLS_msn along with it",
            }),
            _ => Ok(parsed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_right_and_wrong() {
        assert_eq!(ReloadQuery::parse("").unwrap(), ReloadQuery::default());
        assert!(ReloadQuery::parse("token=a&_HLS_skip=v2").unwrap().skip);
        for bad in [
            "_HLS_msn=-1",
            "_HLS_msn=99999999999999999999",
            "_HLS_part=1",
            "_HLS_skip=no",
            "_HLS_msn=1&_HLS_part=x",
        ] {
            assert!(ReloadQuery::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(query in "\\PC{0,80}") {
            let _ = ReloadQuery::parse(&query);
        }
    }
}
