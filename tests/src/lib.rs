//! What whole-cluster tests share: daemons as processes, a mount, conditions to wait for.
