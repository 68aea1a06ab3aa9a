//! `/proc/meminfo` and `/proc/pressure/*`.

use xvm_model::Ratio;
use xvm_model::guest::GuestMemory;

/// Reads `/proc/meminfo`; what it does not say is 0.
pub fn parse_meminfo(text: &str) -> GuestMemory {
    let mut memory = GuestMemory::default();
    let (mut available, mut rest) = (None, 0u64);
    for line in text.lines() {
        let Some((key, value)) = line.split_once(':') else { continue };
        let kib = value.split_ascii_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
        match key {
            "MemTotal" => memory.total = kib,
            "MemAvailable" => available = Some(kib),
            "MemFree" | "Buffers" | "Cached" => rest = rest.saturating_add(kib),
            "SwapTotal" => memory.swap = kib,
            "SwapFree" => memory.swap_free = kib,
            _ => {}
        }
    }
    // kernels before 3.14 do not estimate what is available
    memory.available = available.unwrap_or(rest).min(memory.total);
    memory
}

/// Reads one file of `/proc/pressure`: the share of the last 10 s in which something waited.
pub fn parse_pressure(text: &str) -> Option<Ratio> {
    let some = text.lines().find_map(|l| l.strip_prefix("some "))?;
    let percent = some.split_ascii_whitespace().find_map(|w| w.strip_prefix("avg10="))?;
    Some(Ratio::new(percent.parse::<f64>().ok()? / 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn recorded_texts() {
        let text = "MemTotal:        1014312 kB\nMemFree:          123456 kB\nMemAvailable:     654321 kB\n\
                    Buffers:           10000 kB\nCached:           200000 kB\nSwapTotal:        262140 kB\nSwapFree:         262000 kB\n";
        let memory = parse_meminfo(text);
        assert_eq!(
            memory,
            GuestMemory { total: 1_014_312, available: 654_321, swap: 262_140, swap_free: 262_000 }
        );
        assert_eq!(parse_meminfo(&text.replace("MemAvailable", "Other")).available, 333_456);
        let text = "some avg10=77.22 avg60=54.10 avg300=40.20 total=451544913\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n";
        assert_eq!(parse_pressure(text), Some(Ratio::new(0.77)));
        assert_eq!(parse_pressure(""), None);
    }

    proptest! {
        #[test]
        fn any_text_is_taken(key in "[A-Za-z]{0,12}|MemTotal|Cached|MemFree", value in any::<String>(), n in any::<u64>()) {
            for text in [format!("{key}: {value}"), format!("MemFree: {n} kB\nCached: {n} kB"), format!("some avg10={value}")] {
                let memory = parse_meminfo(&text);
                prop_assert!(memory.available <= memory.total);
                let _ = parse_pressure(&text);
            }
        }
    }
}
