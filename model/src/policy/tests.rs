//! Properties that hold for every rule.
