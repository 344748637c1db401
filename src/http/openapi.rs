//! The OpenAPI document, made from the code that answers, and Swagger UI, which shows it without a network.

use std::sync::{Arc, OnceLock};

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::response::{IntoResponse, Redirect, Response};
use utoipa::OpenApi;
use utoipa_swagger_ui::Config;

use super::api;
use super::problem::Problem;

/// Where the document is.
const OPENAPI_PATH: &str = "/api/v1/openapi.json";

/// Swagger UI sets styles on elements and draws icons from data URLs; scripts come from this server only.
const DOCS_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; \
                           img-src 'self' data:; font-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "finstream",
        description = "What a finstream process does, and the exact totals in its PostgreSQL. Everything is only read. \
                       Money is decimal text, times are RFC 3339 in UTC, units are in the names, and what is not known is \
                       null. Errors are problem documents (RFC 9457).",
        license(name = "Apache-2.0", identifier = "Apache-2.0"),
    ),
    paths(
        api::status,
        api::snapshot,
        api::events,
        api::stages,
        api::partitions,
        api::users,
        api::user,
        api::symbols,
        api::symbol,
        api::windows,
        api::dead_letters,
        api::audit,
    ),
    tags(
        (name = "process", description = "What this process does."),
        (name = "totals", description = "Exact totals, for the life of the data directory."),
        (name = "books", description = "What was refused, and whether the books balance."),
    ),
)]
struct Document;

/// The document as JSON.
pub fn openapi_json() -> &'static str {
    static TEXT: OnceLock<String> = OnceLock::new();
    // Strings and lists only: this cannot fail.
    TEXT.get_or_init(|| Document::openapi().to_pretty_json().unwrap_or_default())
}

/// `GET /api/v1/openapi.json`
pub async fn document() -> Response {
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], openapi_json()).into_response()
}

/// `GET /docs`
pub async fn to_docs() -> Redirect {
    // Its files are named relative to this path.
    Redirect::permanent("/docs/")
}

/// `GET /docs/`
pub async fn docs() -> Response {
    docs_file(Path("index.html".to_owned())).await
}

/// `GET /docs/{file}`
pub async fn docs_file(Path(file): Path<String>) -> Response {
    static CONFIG: OnceLock<Arc<Config<'static>>> = OnceLock::new();
    let config = CONFIG.get_or_init(|| Arc::new(Config::from(OPENAPI_PATH)));
    match utoipa_swagger_ui::serve(&file, Arc::clone(config)) {
        Ok(Some(found)) => {
            let headers = [
                (CONTENT_TYPE, found.content_type),
                (CONTENT_SECURITY_POLICY, DOCS_POLICY.to_owned()),
                (X_CONTENT_TYPE_OPTIONS, "nosniff".to_owned()),
            ];
            (headers, found.bytes.into_owned()).into_response()
        }
        Ok(None) => Problem::not_found(format!("no such file of Swagger UI: {file}")).into_response(),
        Err(error) => Problem::defect(format!("Swagger UI: {error}")).into_response(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_words_and_every_error_is_a_problem_document() {
        let document: serde_json::Value = serde_json::from_str(openapi_json()).unwrap();
        assert_eq!(document["openapi"], "3.1.0");
        assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
        let paths = document["paths"].as_object().unwrap();
        assert!(paths.len() >= 12, "{}", paths.len());
        for (path, methods) in paths {
            assert_eq!(methods.as_object().unwrap().len(), 1, "{path}: nothing but get");
            let operation = &methods["get"];
            assert!(operation["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{path}");
            for (code, response) in operation["responses"].as_object().unwrap() {
                let is_problem = response["content"].get("application/problem+json").is_some();
                assert_eq!(is_problem, code != "200", "{path} {code}");
            }
        }
    }
}
