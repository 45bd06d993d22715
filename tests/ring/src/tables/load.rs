//! Stored load.
