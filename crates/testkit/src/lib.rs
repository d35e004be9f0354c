//! Test support: the promqltest runner, fault-injecting files, generators.
