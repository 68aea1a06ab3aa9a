//! Where volumes are kept.
