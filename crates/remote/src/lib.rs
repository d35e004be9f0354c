//! Wire formats to model and back: remote write, exposition text.
