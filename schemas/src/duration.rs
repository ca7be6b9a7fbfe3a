//! Durations of the plan file: `<int>(s|m|h|d)`.
