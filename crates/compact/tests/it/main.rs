//! The planner beside a model that carries its plans out.

mod model;
mod properties;
mod steady;
