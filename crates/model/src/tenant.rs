//! Tenant ids: part of every series' identity.

use std::{fmt, sync::Arc};

/// A validated tenant id: 1 to 150 bytes of `[a-zA-Z0-9!_.*'()-]`, not `.` or `..`, so that it is safe as a folder
/// name and an object-store key.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Longest tenant id, in bytes.
pub const TENANT_ID_BYTES_MAX: usize = 150;

/// Why a text is no tenant id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid tenant id {id:?}: 1 to 150 characters of a-z A-Z 0-9 ! - _ . * ' ( ) are allowed, and not . or .."
)]
pub struct TenantIdError {
    /// The text, cut after 150 characters.
    pub id: String,
}

impl TenantId {
    /// The tenant of requests that name none.
    pub const DEFAULT: &'static str = "anonymous";

    /// Checks `id`.
    ///
    /// # Errors
    /// When `id` is empty, too long, `.`, `..` or has a character that is not allowed.
    pub fn new(id: &str) -> Result<Self, TenantIdError> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b);
        if id.is_empty()
            || id.len() > TENANT_ID_BYTES_MAX
            || id == "."
            || id == ".."
            || !id.bytes().all(allowed)
        {
            let id = id.chars().take(TENANT_ID_BYTES_MAX).collect();
            return Err(TenantIdError { id });
        }
        Ok(Self(Arc::from(id)))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for TenantId {
    fn default() -> Self {
        Self(Arc::from(Self::DEFAULT))
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_ids_are_refused() {
        for bad in ["", ".", "..", "a/b", "a b", "\u{e9}", &"x".repeat(151)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert_eq!(TenantId::new("team-a.(1)!").expect("allowed").as_str(), "team-a.(1)!");
        assert_eq!(TenantId::default().as_str(), "anonymous");
    }
}
