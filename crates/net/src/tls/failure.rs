use std::{error, fmt};

use tower_sd_core::BoxError;

/// The reason why a TLS handshake failed, in words.
///
/// `Display` has a sentence, such as `the server refused the client certificate: it has expired`.
#[derive(Debug)]
pub struct TlsFailure {
    text: String,
    refuses_client: bool,
    source: Option<BoxError>,
}

impl TlsFailure {
    /// Finds the failure of a handshake in an error and its causes.
    ///
    /// In TLS 1.3 a server checks the client's certificate after the client's half of the
    /// handshake, so a refusal is read in the place of the first response. It is found in the
    /// error of that request.
    pub fn find(error: &(dyn error::Error + 'static)) -> Option<Self> {
        find(error)
    }

    /// Whether the server refused the client's certificate, or missed one.
    ///
    /// On a connection that has served no request yet, the server has then read none.
    pub fn is_client_refused(&self) -> bool {
        self.refuses_client
    }

    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "no TLS, no failure"))]
    pub(super) fn with_source(self, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..self }
    }
}

impl fmt::Display for TlsFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl error::Error for TlsFailure {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        let source: &(dyn error::Error + 'static) = &**self.source.as_ref()?;
        Some(source)
    }
}

#[cfg(not(feature = "tls"))]
fn find(_error: &(dyn error::Error + 'static)) -> Option<TlsFailure> {
    None
}

#[cfg(feature = "tls")]
use self::rustls_errors::find;

#[cfg(feature = "tls")]
mod rustls_errors {
    use std::{error, io, iter};

    use rustls::{AlertDescription as Alert, CertificateError as Certificate, Error};

    use super::TlsFailure;

    pub(super) fn find(error: &(dyn error::Error + 'static)) -> Option<TlsFailure> {
        let chain = iter::successors(Some(error), |error| match error.downcast_ref() {
            // The source of an io::Error is that of the error in it, not the error in it.
            Some(io) => inner(io),
            None => error.source(),
        });
        for error in chain {
            if let Some(found) = error.downcast_ref::<TlsFailure>() {
                let (text, refuses_client) = (found.text.clone(), found.refuses_client);
                return Some(TlsFailure { text, refuses_client, source: None });
            }
            if let Some(error) = error.downcast_ref() {
                return named(error);
            }
            if let Some(found) = flattened(&error.to_string()) {
                return Some(found);
            }
        }
        None
    }

    /// h2 gives the I/O error of a connection to its requests as text only.
    fn flattened(text: &str) -> Option<TlsFailure> {
        let (_, name) = text.rsplit_once("received fatal alert: ")?;
        let (alert, _) = REFUSALS.into_iter().find(|(alert, _)| format!("{alert:?}") == name)?;
        named(&Error::AlertReceived(alert))
    }

    fn inner(error: &io::Error) -> Option<&(dyn error::Error + 'static)> {
        let inner: &(dyn error::Error + 'static) = error.get_ref()?;
        Some(inner)
    }

    fn named(error: &Error) -> Option<TlsFailure> {
        let (text, refuses_client) = match error {
            Error::AlertReceived(alert) => match refusal(*alert) {
                Some(reason) => {
                    (format!("the server refused the client certificate: {reason}"), true)
                }
                None => (alert_text(*alert), false),
            },
            Error::InvalidCertificate(reason) => {
                (format!("the server's certificate is not accepted: {}", judgement(reason)), false)
            }
            Error::InvalidMessage(_) => ("the server has no TLS on this port".to_owned(), false),
            Error::PeerIncompatible(_) => {
                ("client and server have no common TLS version or cipher".to_owned(), false)
            }
            Error::NoApplicationProtocol => (NO_PROTOCOL.to_owned(), false),
            _ => return None,
        };
        Some(TlsFailure { text, refuses_client, source: None })
    }

    /// The reason for a refusal of the client's certificate (RFC 8446, section 6.2).
    fn refusal(alert: Alert) -> Option<&'static str> {
        REFUSALS.into_iter().find(|(refusal, _)| *refusal == alert).map(|(_, reason)| reason)
    }

    const REFUSALS: [(Alert, &str); 9] = [
        (Alert::CertificateRequired, "it requires one, and none is configured"),
        (Alert::CertificateExpired, "it has expired, or is not valid yet"),
        (Alert::CertificateRevoked, "it is revoked"),
        (Alert::UnknownCA, "its authority is not among those that the server trusts"),
        (Alert::UnsupportedCertificate, "its kind is not supported"),
        (Alert::AccessDenied, "it grants no access"),
        (Alert::BadCertificate, "it is not valid (bad certificate)"),
        (Alert::CertificateUnknown, "it is not acceptable (certificate unknown)"),
        (Alert::DecryptError, "its signature does not verify"),
    ];

    fn alert_text(alert: Alert) -> String {
        match alert {
            Alert::NoApplicationProtocol => NO_PROTOCOL.to_owned(),
            Alert::UnrecognisedName => "the server has no certificate for this name".to_owned(),
            Alert::ProtocolVersion => "the server supports none of our TLS versions".to_owned(),
            Alert::HandshakeFailure => {
                "the server refused the handshake: no common cipher, or no client certificate"
                    .to_owned()
            }
            other => format!("the server ended the connection with the TLS alert {other:?}"),
        }
    }

    fn judgement(reason: &Certificate) -> String {
        match reason {
            Certificate::Expired | Certificate::ExpiredContext { .. } => {
                "it has expired".to_owned()
            }
            Certificate::NotValidYet | Certificate::NotValidYetContext { .. } => {
                "it is not valid yet".to_owned()
            }
            Certificate::UnknownIssuer => "its authority is not trusted".to_owned(),
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. } => {
                "it is for another name".to_owned()
            }
            Certificate::BadSignature => {
                "it is not signed by the authority that it names".to_owned()
            }
            Certificate::Revoked => "it is revoked".to_owned(),
            other => other.to_string(),
        }
    }

    const NO_PROTOCOL: &str = "the server agrees to none of the offered protocols (ALPN)";

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn every_refusal_is_found_in_text() {
            for (alert, _) in REFUSALS {
                let text = format!("connection error: {}", Error::AlertReceived(alert));
                let found = flattened(&text).expect("found");
                assert!(found.is_client_refused(), "{text}: {found}");
            }
            assert!(flattened("connection error: received fatal alert: nonsense").is_none());
        }
    }
}
