//! Postings and matchers: which series does a set of matchers select.
