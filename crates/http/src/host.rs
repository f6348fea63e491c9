use http::{
    HeaderValue, Request, Uri, Version,
    header::{Entry, HOST},
    uri::PathAndQuery,
};

/// What the `Host` header says. A request that brings its own keeps it.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum HostPolicy {
    /// The instance's `host:port`: for servers that know only their own address.
    Instance,
    /// The authority of the request's URI, which is the service's logical name (`http://arithmetic/…`): a virtual host
    /// sees the same name whichever instance answers. Without an authority, the instance's `host:port`.
    #[default]
    Service,
}

/// Turns `http://service/path?query` into what an HTTP/1.1 origin server expects: the path alone, and a `Host` header
/// (RFC 9112 §3.2.1, RFC 9110 §7.2).
pub(crate) fn address_to_origin<B>(
    request: &mut Request<B>,
    policy: HostPolicy,
    instance: &HeaderValue,
) {
    let uri = std::mem::take(request.uri_mut());
    let host = match policy {
        HostPolicy::Instance => None,
        HostPolicy::Service => service_name(&uri),
    };
    if let Entry::Vacant(entry) = request.headers_mut().entry(HOST) {
        entry.insert(host.unwrap_or_else(|| instance.clone()));
    }
    *request.uri_mut() =
        uri.into_parts().path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/")).into();
    *request.version_mut() = Version::HTTP_11;
}

/// The authority without user information, which RFC 9110 §4.2.4 keeps off the wire.
fn service_name(uri: &Uri) -> Option<HeaderValue> {
    let authority = uri.authority()?.as_str();
    let name = authority.rsplit_once('@').map_or(authority, |(_, name)| name);
    HeaderValue::from_str(name).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressed(uri: &str, policy: HostPolicy) -> (String, String) {
        let mut request = Request::get(uri).body(()).expect("a valid request");
        address_to_origin(&mut request, policy, &HeaderValue::from_static("10.0.0.1:80"));
        let host = request.headers()[HOST].to_str().expect("ASCII");
        (request.uri().to_string(), host.to_owned())
    }

    #[test]
    fn the_target_is_the_path_and_the_host_is_the_service() {
        let (uri, host) = addressed("http://arithmetic:8080/a/b?c=d", HostPolicy::Service);
        assert_eq!((uri.as_str(), host.as_str()), ("/a/b?c=d", "arithmetic:8080"));
    }

    #[test]
    fn the_host_is_the_instance_by_policy_or_when_there_is_no_name() {
        assert_eq!(addressed("http://arithmetic/", HostPolicy::Instance).1, "10.0.0.1:80");
        assert_eq!(addressed("/a", HostPolicy::Service).1, "10.0.0.1:80");
    }

    #[test]
    fn an_empty_path_is_the_root_and_a_password_stays_here() {
        let (uri, host) = addressed("http://user:secret@arithmetic", HostPolicy::Service);
        assert_eq!((uri.as_str(), host.as_str()), ("/", "arithmetic"));
    }

    #[test]
    fn a_host_header_of_the_user_is_kept() {
        let mut request = Request::get("http://arithmetic/")
            .header(HOST, "mine")
            .body(())
            .expect("a valid request");
        let instance = HeaderValue::from_static("10.0.0.1:80");
        address_to_origin(&mut request, HostPolicy::Service, &instance);
        assert_eq!(request.headers()[HOST], "mine");
    }

    #[test]
    fn a_request_for_http_2_becomes_one_for_1_1() {
        let mut request = Request::get("http://arithmetic/")
            .version(Version::HTTP_2)
            .body(())
            .expect("a valid request");
        let instance = HeaderValue::from_static("10.0.0.1:80");
        address_to_origin(&mut request, HostPolicy::Service, &instance);
        assert_eq!(request.version(), Version::HTTP_11);
    }
}
