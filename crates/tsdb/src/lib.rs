//! The database: head, retention and limits behind the storage contract.
