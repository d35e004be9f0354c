//! Seams to the outside: clock, randomness, files, background jobs.
