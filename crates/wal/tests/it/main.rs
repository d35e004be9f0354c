//! The log from outside: its bytes, damage, crashes, failures, many writers at once.

mod crash;
mod damage;
mod failure;
mod format;
mod segments;
mod support;
mod threads;
