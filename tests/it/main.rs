//! The system as its users meet it: real nodes, real mounts, real programs. One module for each promise or kind of user.

mod bad_input;
mod churn;
mod faults;
mod posix;
mod programs;
mod scripts;
mod seeds;
mod two_mounts;
