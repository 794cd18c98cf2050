//! What keeps web pages from using admin HTTP through the browser of an operator.
//!
//! Invariant: a request from a page of another site, or by a name that is not the node's, is not answered, and no answer can be put into
//! another page, kept by a browser, or taken for something else than what it is. Nothing ever lets a page of another site read an
//! answer (CORS): there are no such headers.
//!
//! Probes by any name are answered: a load balancer has its own, and their answers say nothing.
//!
//! Deliberately absent: which origins and hosts are the node's (`config`), and logins (`users`).

use axum::extract::{Request, State};
use axum::http::header::{
    HeaderName, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, ORIGIN, REFERRER_POLICY,
    STRICT_TRANSPORT_SECURITY, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::Response;

use super::users::OPEN;
use super::{refusal, Served};
use crate::config::hosts::Hosts;
use crate::config::origins::Origins;
use crate::config::NodeConfig;

/// What a browser has to know of each answer: it is data, for the one who asked.
const HEADERS: [(HeaderName, HeaderValue); 6] = [
    (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"),
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        HeaderValue::from_static("same-origin"),
    ),
    (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
];

/// The same where there is TLS: this host is to be asked in TLS alone from now on.
const TLS_ALONE: (HeaderName, HeaderValue) =
    (STRICT_TRANSPORT_SECURITY, HeaderValue::from_static("max-age=31536000"));

const FOREIGN_PAGE: &str = "web pages of other sites may not use admin HTTP";

/// The longest part of a foreign name that is repeated.
const SHOWN: usize = 80;

/// The web pages that may use admin HTTP, and the names by which it is asked.
#[derive(Clone, Debug, Default)]
pub struct Visitors {
    origins: Origins,
    hosts: Hosts,
}

impl Visitors {
    /// Those of a node's operators.
    #[must_use]
    pub fn of(config: &NodeConfig) -> Self {
        Self { origins: Origins::of_operators(config), hosts: Hosts::of(config) }
    }

    /// Why a request is not answered, if it is not.
    fn refuse(&self, request: &Request) -> Option<Response> {
        let headers = request.headers();
        let mut named = headers.get_all(ORIGIN).iter();
        if !named.all(|origin| origin.to_str().is_ok_and(|origin| self.origins.allows(origin))) {
            return Some(refusal(StatusCode::FORBIDDEN, FOREIGN_PAGE.into()));
        }
        let foreign = self.foreign_host(headers, request.uri().authority().map(|a| a.as_str()))?;
        if OPEN.contains(&request.uri().path()) {
            return None;
        }
        let shown: String = foreign.chars().take(SHOWN).collect();
        let told = format!(
            "this node does not go by the name {shown:?}: ask it at one of its own hosts or at its address; or, if that name is its own \
             and no foreign page's, add it to `hosts` under [listen] in the configuration"
        );
        Some(refusal(StatusCode::MISDIRECTED_REQUEST, told))
    }

    /// A name in a request that is not this node's. Who names none is not a browser.
    fn foreign_host(&self, headers: &HeaderMap, target: Option<&str>) -> Option<String> {
        let named = headers.get_all(HOST).iter().map(HeaderValue::as_bytes);
        let mut named = named.chain(target.map(str::as_bytes));
        let allowed = |name: &[u8]| std::str::from_utf8(name).is_ok_and(|n| self.hosts.allow(n));
        let foreign = named.find(|name| !allowed(name))?;
        Some(String::from_utf8_lossy(foreign).into_owned())
    }
}

/// Answers whom it may, and says to browsers what an answer is.
pub(super) async fn guard(State(served): State<Served>, request: Request, next: Next) -> Response {
    let mut response = match served.visitors.refuse(&request) {
        Some(refused) => refused,
        None => next.run(request).await,
    };
    let headers = response.headers_mut();
    headers.extend(HEADERS.into_iter().chain(served.encrypted.then_some(TLS_ALONE)));
    response
}
