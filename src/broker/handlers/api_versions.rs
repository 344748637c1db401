//! ApiVersions (18), versions 0-4. v3 adds the client's name (KIP-511), ignored here.
//!
//! A version that we do not know is answered with error 35 in a version 0 body, so that the client can read it and
//! come back with a lower one. No features are advertised: neither KIP-848's groups nor KIP-890's second part is served.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiKey, ApiVersionsResponse};

use crate::broker::versions::{APIS, Api};

/// What this broker takes.
pub(crate) fn handle() -> ApiVersionsResponse {
    let row = |api: &Api| {
        ApiVersion::default()
            .with_api_key(api.key as i16)
            .with_min_version(api.advertised_min())
            .with_max_version(api.max)
    };
    ApiVersionsResponse::default().with_api_keys(APIS.iter().map(row).collect())
}

/// The answer to a version from the future; to be encoded as version 0. It tells which versions of this API there are.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    let mut response = handle();
    response.api_keys.retain(|row| row.api_key == ApiKey::ApiVersions as i16);
    response.with_error_code(ResponseError::UnsupportedVersion.code())
}
