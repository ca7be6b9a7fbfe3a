//! Names what the lanes of a route waited for most, and its share of their time.
//!
//! Invariant: the network is named only where the target told that it was idle meanwhile; what nobody told is not guessed.

/// Below this share of one core, a target that was waited for was not what was slow: its thread of commands was idle.
const BUSY: f64 = 0.6;

/// What was waited for most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing was carried by this process.
    None,
    /// The source, or the way from it.
    Source,
    /// The transform threads of this machine.
    Cpu,
    /// The way to the target and back.
    Network,
    /// The target.
    Target,
    /// Limits that were asked for, or room in the target.
    Limits,
}

impl Limit {
    /// Its name in summaries.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Source => "source",
            Self::Cpu => "cpu",
            Self::Network => "network",
            Self::Target => "target",
            Self::Limits => "limits",
        }
    }
}

/// Names the largest of what was waited for (microseconds: source, transform threads, target, limits), with its share of all.
/// `target_busy` is the share of one core that the target used meanwhile, where it told.
pub fn bottleneck(waits: [u64; 4], target_busy: Option<f64>) -> (Limit, f64) {
    let all: u64 = waits.iter().sum();
    let names = [Limit::Source, Limit::Cpu, Limit::Target, Limit::Limits];
    let Some((most, limit)) = waits.into_iter().zip(names).max_by_key(|(waited, _)| *waited) else {
        return (Limit::None, 0.0);
    };
    if most == 0 {
        return (Limit::None, 0.0);
    }
    let is_idle = limit == Limit::Target && target_busy.is_some_and(|busy| busy < BUSY);
    (if is_idle { Limit::Network } else { limit }, most as f64 / all as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_wait_is_named_with_its_share() {
        assert_eq!(bottleneck([0; 4], Some(0.1)), (Limit::None, 0.0));
        assert_eq!(bottleneck([60, 20, 20, 0], None), (Limit::Source, 0.6));
        assert_eq!(bottleneck([10, 80, 10, 0], Some(0.1)), (Limit::Cpu, 0.8));
        assert_eq!(bottleneck([10, 0, 30, 0], Some(0.95)), (Limit::Target, 0.75));
        assert_eq!(bottleneck([10, 0, 30, 0], Some(0.2)), (Limit::Network, 0.75));
        assert_eq!(bottleneck([10, 0, 30, 0], None), (Limit::Target, 0.75));
        assert_eq!(bottleneck([1, 1, 1, 97], Some(0.0)), (Limit::Limits, 0.97));
    }
}
