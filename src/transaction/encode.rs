//! Transaction -> JSON bytes.
