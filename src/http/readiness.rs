//! Which role of this process is ready, and what the others wait for.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// Shared by the roles, which report, and by the windows, which show. Clones report to the same registry.
#[derive(Clone, Debug)]
pub struct Readiness(Arc<watch::Sender<Roles>>);

/// Role -> what it waits for; `None` is ready.
type Roles = BTreeMap<&'static str, Option<String>>;

impl Default for Readiness {
    fn default() -> Self {
        Self::new()
    }
}

impl Readiness {
    /// No role has reported yet, so nothing is ready.
    pub fn new() -> Self {
        Readiness(Arc::new(watch::Sender::new(Roles::new())))
    }

    /// `role` waits for `what`, in words for people: "a broker at 127.0.0.1:9092".
    pub fn waiting(&self, role: &'static str, what: impl Into<String>) {
        self.report(role, Some(what.into()));
    }

    /// `role` does its work.
    pub fn ready(&self, role: &'static str) {
        self.report(role, None);
    }

    /// What the roles wait for; empty when all who reported are ready.
    pub fn waiting_for(&self) -> BTreeMap<&'static str, String> {
        self.0.borrow().iter().filter_map(|(role, what)| what.clone().map(|what| (*role, what))).collect()
    }

    /// Each role that has reported, and whether it is ready.
    pub fn roles(&self) -> BTreeMap<&'static str, bool> {
        self.0.borrow().iter().map(|(role, what)| (*role, what.is_none())).collect()
    }

    /// At least one role has reported, and every one that did is ready.
    pub fn is_ready(&self) -> bool {
        all_ready(&self.0.borrow())
    }

    /// Resolves when everything is ready.
    pub async fn all_ready(&self) {
        // The sender lives as long as `self`, so the wait cannot end in an error.
        let _ = self.0.subscribe().wait_for(all_ready).await;
    }

    fn report(&self, role: &'static str, what: Option<String>) {
        self.0.send_if_modified(|roles| roles.insert(role, what.clone()) != Some(what));
    }
}

fn all_ready(roles: &Roles) -> bool {
    !roles.is_empty() && roles.values().all(Option::is_none)
}

#[cfg(test)]
#[allow(clippy::expect_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_ready_before_every_role_that_reported_is() {
        let readiness = Readiness::new();
        assert!(!readiness.is_ready(), "no role has reported");
        readiness.waiting("consumer", "a broker at 127.0.0.1:9092");
        readiness.ready("producer");
        assert!(!readiness.is_ready());
        assert_eq!(readiness.waiting_for()["consumer"], "a broker at 127.0.0.1:9092");

        let waiter = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.all_ready().await }
        });
        readiness.ready("consumer");
        waiter.await.expect("the waiter ends");
        assert!(readiness.waiting_for().is_empty());
    }

    #[test]
    fn a_role_that_loses_what_it_needs_is_not_ready_again() {
        let readiness = Readiness::new();
        readiness.ready("consumer");
        readiness.waiting("consumer", "PostgreSQL to come back");
        assert!(!readiness.is_ready());
    }
}
