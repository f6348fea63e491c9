use http::{
    HeaderValue, Request, Uri, Version,
    header::{Entry, HOST},
    uri::{Authority, Parts, PathAndQuery, Scheme},
};
use serde::Deserialize;

/// The value of the `Host` header, or in HTTP/2 of `:authority`.
///
/// A request that brings its own `Host` keeps it. In a configuration it is `"instance"` or
/// `"service"`.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq)]
#[non_exhaustive]
#[serde(rename_all = "snake_case")]
pub enum HostPolicy {
    /// The instance's `host:port`: for servers that know only their own address.
    Instance,
    /// The authority of the request's URI, which is the service's logical name
    /// (`http://arithmetic/…`): a virtual host sees the same name whichever instance answers.
    /// Without an authority, the instance's `host:port`.
    #[default]
    Service,
}

/// Sets the URI's authority to the name of the server, unless there is a `Host` header.
pub(crate) fn name_host<B>(request: &mut Request<B>, policy: HostPolicy, instance: &Authority) {
    if request.headers().contains_key(HOST) {
        return;
    }
    let named = match policy {
        HostPolicy::Instance => None,
        HostPolicy::Service => request.uri().authority().map(without_user),
    };
    match named {
        Some(Named::AsItIs) => {}
        Some(Named::Shorter(authority)) => set_authority(request, authority),
        None => set_authority(request, instance.clone()),
    }
}

/// Turns `http://service/path?query` into what an HTTP/1.1 origin server expects: the path alone, and a `Host` header
/// (RFC 9112 §3.2.1, RFC 9110 §7.2).
pub(crate) fn to_http1<B>(request: &mut Request<B>) {
    let uri = std::mem::take(request.uri_mut()).into_parts();
    if let Some(authority) = uri.authority
        && let Entry::Vacant(entry) = request.headers_mut().entry(HOST)
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        entry.insert(host);
    }
    let target = uri.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
    *request.uri_mut() = target.into();
    *request.version_mut() = Version::HTTP_11;
}

/// Turns a `Host` header into the `:authority` that HTTP/2 has in its place (RFC 9113 §8.3.1), and
/// makes the `:scheme` that of the connection.
pub(crate) fn to_http2<B>(request: &mut Request<B>, scheme: Scheme) {
    *request.version_mut() = Version::HTTP_2;
    let host = request.headers().get(HOST);
    if let Some(authority) = host.and_then(|host| Authority::try_from(host.as_bytes()).ok()) {
        request.headers_mut().remove(HOST);
        set_authority(request, authority);
    }
    if request.uri().authority().is_some() && request.uri().scheme() != Some(&scheme) {
        edit(request, |parts| parts.scheme = Some(scheme));
    }
}

fn set_authority<B>(request: &mut Request<B>, authority: Authority) {
    edit(request, |parts| {
        parts.authority = Some(authority);
        parts.scheme.get_or_insert(Scheme::HTTP);
        parts.path_and_query.get_or_insert_with(|| PathAndQuery::from_static("/"));
    });
}

fn edit<B>(request: &mut Request<B>, edit: impl FnOnce(&mut Parts)) {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    edit(&mut parts);
    // All three parts are there, which is all that is required.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
}

enum Named {
    AsItIs,
    Shorter(Authority),
}

/// User information stays off the wire (RFC 9110 §4.2.4).
fn without_user(authority: &Authority) -> Named {
    let Some((_, name)) = authority.as_str().rsplit_once('@') else {
        return Named::AsItIs;
    };
    match Authority::try_from(name) {
        Ok(shorter) => Named::Shorter(shorter),
        Err(_) => Named::AsItIs,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addressed(uri: &str, policy: HostPolicy) -> (String, String) {
        let mut request = Request::get(uri).body(()).expect("a valid request");
        name_host(&mut request, policy, &Authority::from_static("10.0.0.1:80"));
        to_http1(&mut request);
        let host = request.headers()[HOST].to_str().expect("ASCII");
        (request.uri().to_string(), host.to_owned())
    }

    #[test]
    fn target_is_the_path_and_the_host_is_the_service() {
        let (uri, host) = addressed("http://arithmetic:8080/a/b?c=d", HostPolicy::Service);
        assert_eq!((uri.as_str(), host.as_str()), ("/a/b?c=d", "arithmetic:8080"));
    }

    #[test]
    fn host_is_the_instance_by_policy_or_when_there_is_no_name() {
        assert_eq!(addressed("http://arithmetic/", HostPolicy::Instance).1, "10.0.0.1:80");
        assert_eq!(addressed("/a", HostPolicy::Service).1, "10.0.0.1:80");
    }

    #[test]
    fn policy_in_a_configuration_is_a_word() {
        let parse = |text| serde_json::from_str::<HostPolicy>(text);
        assert_eq!(parse(r#""instance""#).expect("a policy"), HostPolicy::Instance);
        assert_eq!(parse(r#""service""#).expect("a policy"), HostPolicy::Service);
        assert!(parse(r#""Host""#).expect_err("none").to_string().contains("instance"));
    }

    #[test]
    fn empty_path_is_the_root_and_a_password_stays_here() {
        let (uri, host) = addressed("http://user:secret@arithmetic", HostPolicy::Service);
        assert_eq!((uri.as_str(), host.as_str()), ("/", "arithmetic"));
    }

    #[test]
    fn host_header_of_the_user_is_kept() {
        let mut request = Request::get("http://arithmetic/")
            .header(HOST, "mine")
            .body(())
            .expect("a valid request");
        name_host(&mut request, HostPolicy::Service, &Authority::from_static("10.0.0.1:80"));
        to_http1(&mut request);
        assert_eq!(request.headers()[HOST], "mine");
    }

    #[test]
    fn request_for_http_2_becomes_one_for_1_1() {
        let mut request = Request::get("http://arithmetic/")
            .version(Version::HTTP_2)
            .body(())
            .expect("a valid request");
        name_host(&mut request, HostPolicy::Service, &Authority::from_static("10.0.0.1:80"));
        to_http1(&mut request);
        assert_eq!(request.version(), Version::HTTP_11);
    }
}
