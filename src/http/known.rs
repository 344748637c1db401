//! What the windows are told by whoever runs the roles, once it is known: where to read totals, and how audits ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::Serialize;
use utoipa::ToSchema;

use super::reads::Reads;

/// Told by one side, shown by the other. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Told>);

#[derive(Debug, Default)]
struct Told {
    reads: OnceLock<Reads>,
    audit: Mutex<Audits>,
}

/// This process, as viewers see it.
#[derive(Clone, Debug, Default)]
pub struct About {
    /// Its roles, in the order of a message's way.
    pub roles: Vec<&'static str>,
    /// What a person types to reach this data directory: `finstream`, with the flags that it takes.
    pub command: String,
}

/// What is known of audits; nothing is audited for a viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
pub struct Audits {
    /// The last one that this process has made; null before that.
    pub last: Option<AuditResult>,
    /// What the last balanced audit with a checkpoint has proven, by whichever process; null where none is known.
    pub checkpoint: Option<AuditCheckpoint>,
}

/// How an audit ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditResult {
    /// When.
    #[schema(format = DateTime)]
    pub made_at: String,
    /// `balanced`, `differences`, `undecided` or `nothing`; `failed` when it could not be made.
    #[schema(example = "balanced")]
    pub verdict: &'static str,
    /// For people.
    pub text: String,
}

/// Up to where the books are proven.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct AuditCheckpoint {
    /// When.
    #[schema(format = DateTime)]
    pub made_at: String,
    /// Of each partition: everything before this offset.
    #[schema(value_type = BTreeMap<String, i64>)]
    pub offsets: BTreeMap<i32, i64>,
}

impl Known {
    /// From now on totals can be read. The first one told stays.
    pub fn set_reads(&self, reads: Reads) {
        // There is one database a process.
        let _ = self.0.reads.set(reads);
    }

    /// Where totals are read; none while that is not known, or no consumer runs here.
    pub fn reads(&self) -> Option<&Reads> {
        self.0.reads.get()
    }

    /// An audit has ended.
    pub fn set_audit(&self, result: AuditResult) {
        self.lock().last = Some(result);
    }

    /// There is a checkpoint.
    pub fn set_checkpoint(&self, checkpoint: Option<AuditCheckpoint>) {
        self.lock().checkpoint = checkpoint;
    }

    /// What is known of audits.
    pub fn audits(&self) -> Audits {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Audits> {
        // Fields are set one by one, each as a whole.
        self.0.audit.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
