//! What we do otherwise than Apache Kafka, on purpose. Anything else that differs is a fault.

/// One deliberate difference. `*` in a pattern stands for anything.
#[derive(Debug)]
pub struct Difference {
    pub scenario: &'static str,
    /// Step and field: `1 Metadata v12: topics[t].error_code`.
    pub path: &'static str,
    pub kafka: &'static str,
    pub ours: &'static str,
    pub reason: &'static str,
}

const fn differs(
    scenario: &'static str,
    path: &'static str,
    kafka: &'static str,
    ours: &'static str,
    reason: &'static str,
) -> Difference {
    Difference { scenario, path, kafka, ours, reason }
}

/// All of them; the first that fits counts.
pub const DIFFERENCES: &[Difference] = &[
];
