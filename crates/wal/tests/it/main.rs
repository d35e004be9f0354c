//! The log from outside: its bytes, damage, crashes, failures, many writers at once.

mod covered;
mod crash;
mod damage;
mod failure;
mod format;
mod limits;
mod repair;
mod segments;
mod support;
mod threads;
