//! A call to AWS that failed, as one line for people: what was asked, of what, and what to do about it.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_ec2::error::{ProvideErrorMetadata, SdkError};
use thiserror::Error;

#[derive(Clone, Debug, Error)]
#[error("{action} of {resource}: {trouble}: {detail}")]
pub struct CallError {
    /// As a policy names the right to it: `autoscaling:PutScalingPolicy`.
    pub action: &'static str,
    pub resource: String,
    pub trouble: Trouble,
    pub detail: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Trouble {
    #[error("too many calls at once (throttled); it is tried again, more slowly")]
    Throttled,
    #[error("the credentials lack this right; give it to the instance's role")]
    Denied,
    #[error("the credentials have expired; see that the role is still attached to the instance")]
    Expired,
    #[error("the credentials are not valid here; see which ones are used, and that the region is right")]
    Invalid,
    #[error("the clock of this machine is wrong by minutes; set it, for example with chrony")]
    Clock,
    #[error("there is no such thing; see name and region")]
    Missing,
    #[error("there are no credentials; give the instance a role, or see `aws configure`")]
    NoCredentials,
    #[error("no answer; see network, endpoint and region")]
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
                let trouble = Trouble::of_answer(code, refused.message().unwrap_or_default());
                Self { action, resource, trouble, detail: one_line(&detail) }
            }
            None => {
                let trouble = if lacks_credentials(error) { Trouble::NoCredentials } else { Trouble::Unreachable };
                Self { action, resource, trouble, detail: one_line(&causes(error)) }
            }
        }
    }

    pub fn no_group(name: &str) -> Self {
        Self {
            action: "autoscaling:DescribeAutoScalingGroups",
            resource: name.to_owned(),
            trouble: Trouble::Missing,
            detail: "no Auto Scaling group of that name in this region".to_owned(),
        }
    }
}

impl Trouble {
    /// AWS uses one code for a wrong key and for a wrong clock (`SignatureDoesNotMatch`, in EC2 `AuthFailure`), and EC2 one
    /// for a wrong clock and for an old token (`RequestExpired`); only the message tells.
    fn of_answer(code: &str, message: &str) -> Self {
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

fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    for cause in chain(error) {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = if text.is_empty() { said } else { format!("{text}: {said}") };
        }
    }
    text
}

fn lacks_credentials(error: &(dyn Error + 'static)) -> bool {
    chain(error).any(|cause| cause.is::<CredentialsError>())
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
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
            ("Throttling", "Rate exceeded", Trouble::Throttled),
            ("RequestLimitExceeded", "", Trouble::Throttled),
            ("AccessDenied", "User: arn:x is not authorized", Trouble::Denied),
            ("UnauthorizedOperation", "", Trouble::Denied),
            ("ExpiredToken", "", Trouble::Expired),
            ("RequestExpired", "", Trouble::Clock),
            ("RequestExpired", "The security token included in the request is expired", Trouble::Expired),
            ("AuthFailure", "Signature not yet current: 20261121", Trouble::Clock),
            ("AuthFailure", "AWS was not able to validate the provided access credentials", Trouble::Invalid),
            ("SignatureDoesNotMatch", "Signature expired: 20261121 is now earlier than", Trouble::Clock),
            ("SignatureDoesNotMatch", "The request signature we calculated", Trouble::Invalid),
            ("ValidationError", "AutoScalingGroup name not found", Trouble::Missing),
            ("ValidationError", "min is above max", Trouble::Refused),
        ] {
            assert_eq!(Trouble::of_answer(code, message), wanted, "{code} {message}");
        }
    }

    #[test]
    fn a_line_names_action_and_resource_and_what_to_do() {
        let error = CallError::no_group("MyGroup");
        let line = error.to_string();
        for part in ["DescribeAutoScalingGroups", "MyGroup", "region"] {
            assert!(line.contains(part), "{line}");
        }
        assert_eq!(one_line("a\n  b\tc"), "a b c");
        assert!(one_line(&"ä".repeat(1000)).len() < 900);
    }
}
