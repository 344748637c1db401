//! Names of topics: which are possible, and which are the broker's own.

/// Kafka's limit of a topic name.
const NAME_BYTES_MAX: usize = 249;
/// Where the transaction coordinator keeps its state.
pub(crate) const TRANSACTION_STATE: &str = "__transaction_state";
/// Where the group coordinator keeps groups and committed offsets.
pub(crate) const CONSUMER_OFFSETS: &str = "__consumer_offsets";

/// Whether only the broker itself writes to the topic of this name.
pub(crate) fn is_internal(name: &str) -> bool {
    matches!(name, TRANSACTION_STATE | CONSUMER_OFFSETS)
}

/// Kafka's rules of topic names.
pub(crate) fn valid_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(allowed) && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names_that_would_leave_the_directory_are_refused() {
        for name in ["", ".", "..", "a/b", "../a", "a b", "ä", "a\0b", &"a".repeat(250)] {
            assert!(!valid_name(name), "{name:?}");
        }
        for name in ["a", "finance.transactions", "A_b-9", &"a".repeat(249)] {
            assert!(valid_name(name), "{name:?}");
        }
    }
}
