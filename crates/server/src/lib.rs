//! HTTP: routes, parameters, JSON, error to status.
