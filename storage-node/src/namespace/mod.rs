//! The namespace: who is called what, and which versions make a file.

pub mod tables;
