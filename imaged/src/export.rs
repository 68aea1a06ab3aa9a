//! Volumes as network block exports.
