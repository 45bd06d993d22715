//! A failed call to AWS, as one line for operators: the call, its resource, and what to do about it.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

#[derive(Clone, Debug, Error)]
#[error("{action} of {resource}: {kind}: {detail}")]
pub struct CallError {
    /// The IAM action, such as `autoscaling:PutScalingPolicy`.
    pub action: &'static str,
    pub resource: String,
    pub kind: CallErrorKind,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum CallErrorKind {
    #[error("too many calls at once (throttled); the call will be retried more slowly")]
    Throttled,
    #[error("the credentials lack this right; add it to the instance's role")]
    Denied,
    #[error("the credentials have expired; check that the role is still attached to the instance")]
    Expired,
    #[error("the credentials are not valid here; check which ones are used, and whether the region is right")]
    Invalid,
    #[error("the clock of this machine is wrong by minutes; set it, for example with chrony")]
    Clock,
    #[error("there is no such resource; check its name and the region")]
    Missing,
    #[error("there are no credentials; attach a role to the instance, or run `aws configure`")]
    NoCredentials,
    #[error("no answer; check the network, the endpoint and the region")]
    Unreachable,
    #[error("refused")]
    Refused,
}

impl CallError {
    pub fn new<E, R>(action: &'static str, resource: impl Into<String>, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let resource = resource.into();
        match error.as_service_error() {
            Some(refused) => {
                let code = refused.code().unwrap_or("no code");
                let detail = format!("{code}: {}", refused.message().unwrap_or("no message"));
                let kind = CallErrorKind::from_code(code, refused.message().unwrap_or_default());
                Self { action, resource, kind, detail: one_line(&detail) }
            }
            None => {
                let kind =
                    if lacks_credentials(error) { CallErrorKind::NoCredentials } else { CallErrorKind::Unreachable };
                Self { action, resource, kind, detail: one_line(&cause_text(error)) }
            }
        }
    }

    pub fn no_group(name: &str) -> Self {
        Self {
            action: "autoscaling:DescribeAutoScalingGroups",
            resource: name.to_owned(),
            kind: CallErrorKind::Missing,
            detail: "no Auto Scaling group of that name in this region".to_owned(),
        }
    }
}

impl CallErrorKind {
    /// AWS returns the same code for a wrong key and a wrong clock (`SignatureDoesNotMatch`, in EC2 `AuthFailure`), and
    /// EC2 for a wrong clock and an expired token (`RequestExpired`); only the message distinguishes them.
    fn from_code(code: &str, message: &str) -> Self {
        let is_late = message.contains("Signature expired") || message.contains("not yet current");
        match code {
            "Throttling"
            | "ThrottlingException"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "RequestThrottled"
            | "SlowDown" => Self::Throttled,
            "AccessDenied" | "AccessDeniedException" | "UnauthorizedOperation" => Self::Denied,
            "ExpiredToken" | "ExpiredTokenException" => Self::Expired,
            "RequestExpired" if message.contains("token") => Self::Expired,
            "RequestExpired" | "RequestTimeTooSkewed" | "RequestInTheFuture" => Self::Clock,
            "SignatureDoesNotMatch" | "AuthFailure" if is_late => Self::Clock,
            "SignatureDoesNotMatch"
            | "InvalidClientTokenId"
            | "AuthFailure"
            | "UnrecognizedClientException"
            | "MissingAuthenticationToken"
            | "InvalidSignatureException" => Self::Invalid,
            "ResourceNotFound" | "ResourceNotFoundException" => Self::Missing,
            "ValidationError" if message.contains("not found") => Self::Missing,
            _ => Self::Refused,
        }
    }
}

fn cause_text(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in error_chain(error) {
        let message = cause.to_string();
        if !text.contains(&message) {
            text = if text.is_empty() { message } else { format!("{text}: {message}") };
        }
    }
    text
}

fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    error_chain(error).any(|cause| cause.is::<CredentialsError>())
}

fn error_chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&cause| cause.source())
}

fn one_line(text: &str) -> String {
    const LONG: usize = 400;
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(LONG) {
        Some((at, _)) => format!("{}...", &line[..at]),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_become_advice() {
        for (code, message, wanted) in [
            ("Throttling", "Rate exceeded", CallErrorKind::Throttled),
            ("RequestLimitExceeded", "", CallErrorKind::Throttled),
            ("AccessDenied", "User: arn:x is not authorized", CallErrorKind::Denied),
            ("UnauthorizedOperation", "", CallErrorKind::Denied),
            ("ExpiredToken", "", CallErrorKind::Expired),
            ("RequestExpired", "", CallErrorKind::Clock),
            ("RequestExpired", "The security token included in the request is expired", CallErrorKind::Expired),
            ("AuthFailure", "Signature not yet current: 20261121", CallErrorKind::Clock),
            ("AuthFailure", "AWS was not able to validate the provided access credentials", CallErrorKind::Invalid),
            ("SignatureDoesNotMatch", "Signature expired: 20261121 is now earlier than", CallErrorKind::Clock),
            ("SignatureDoesNotMatch", "The request signature we calculated", CallErrorKind::Invalid),
            ("ValidationError", "AutoScalingGroup name not found", CallErrorKind::Missing),
            ("ValidationError", "min is above max", CallErrorKind::Refused),
        ] {
            assert_eq!(CallErrorKind::from_code(code, message), wanted, "{code} {message}");
        }
    }

    #[test]
    fn an_error_names_action_resource_and_remedy() {
        let error = CallError::no_group("MyGroup");
        let line = error.to_string();
        for part in ["DescribeAutoScalingGroups", "MyGroup", "region"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        assert!(one_line(&"ä".repeat(1000)).len() < 900);
    }
}
