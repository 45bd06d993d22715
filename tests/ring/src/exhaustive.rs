//! Every interleaving of a small ring.
