//! Implements [`Cloud`] with the AWS SDK: converts values to requests and answers to values, and decides nothing.
//!
//! The SDK resolves region, credentials and endpoints, so `AWS_ENDPOINT_URL` and `AWS_EC2_METADATA_SERVICE_ENDPOINT`
//! can point to a test server.

use std::time::Duration;

use aws_config::imds::{self, client::error::ImdsError};
use aws_sdk_autoscaling::{self as autoscaling, error::SdkError};
use aws_sdk_cloudwatch as cloudwatch;
use cloudwatch::types::{
    ComparisonOperator, Dimension, MetricAlarm, MetricDatum, StandardUnit, Statistic as SdkStatistic,
};

use super::cloud::{
    AlarmSpec, CallError, CallErrorKind, Cloud, CloudFuture, Datum, FoundAlarm, FoundPolicy, Group, HeldInstance, Hook,
    Membership, MetricUnit, PolicySpec, Statistic,
};

const METADATA_TRY: Duration = Duration::from_secs(1);
const METADATA_TRIES: u32 = 4;
/// How CloudWatch treats a period without data: the alarm keeps its state.
const MISSING: &str = "missing";
/// The service's default, for a hook whose heartbeat timeout was never set.
const DEFAULT_HEARTBEAT_SECS: i32 = 3600;
const MAX_GLOBAL_SECS: i32 = 172_800;

/// What is shown beside the secret's name.
const SECRET: &str = "The certificate authority of a chordfs ring: who has it can join the ring and read everything";

pub(crate) struct Sdk {
    imds: imds::Client,
    autoscaling: autoscaling::Client,
    cloudwatch: cloudwatch::Client,
    ec2: aws_sdk_ec2::Client,
    secrets: aws_sdk_secretsmanager::Client,
}

impl Sdk {
    /// `region`: the instance's region, used unless the environment names another.
    pub(crate) async fn new(imds: imds::Client, region: Option<String>) -> Self {
        let config = chordfs_asg::sdk_config(region).await;
        Self {
            imds,
            autoscaling: autoscaling::Client::new(&config),
            cloudwatch: cloudwatch::Client::new(&config),
            ec2: aws_sdk_ec2::Client::new(&config),
            secrets: aws_sdk_secretsmanager::Client::new(&config),
        }
    }

    /// Returns a client that uses session tokens only; version 1 of the service is not supported.
    pub(crate) fn metadata_client() -> imds::Client {
        imds::Client::builder()
            .connect_timeout(METADATA_TRY)
            .read_timeout(METADATA_TRY)
            .max_attempts(METADATA_TRIES)
            .build()
    }
}

pub(crate) async fn metadata(imds: &imds::Client, path: &str) -> Result<Option<String>, CallError> {
    match imds.get(format!("/latest/meta-data/{path}")).await {
        Ok(text) => Ok(Some(String::from(text.as_ref()).trim().to_owned())),
        Err(ImdsError::ErrorResponse(answer)) if answer.response().status().as_u16() == 404 => Ok(None),
        Err(error) => {
            let kind = match &error {
                ImdsError::ErrorResponse(_) => CallErrorKind::Refused,
                _ => CallErrorKind::Unreachable,
            };
            let detail = match &error {
                ImdsError::ErrorResponse(answer) => format!("status {}", answer.response().status().as_u16()),
                other => other.to_string(),
            };
            Err(CallError { action: "metadata service, GET", resource: path.to_owned(), kind, detail })
        }
    }
}

/// Whether a call failed by an error of the service that `test` recognizes.
fn is<E, R>(error: &SdkError<E, R>, test: impl FnOnce(&E) -> bool) -> bool {
    error.as_service_error().is_some_and(test)
}

impl Cloud for Sdk {
    fn metadata(&self, path: &'static str) -> CloudFuture<'_, Option<String>> {
        Box::pin(metadata(&self.imds, path))
    }

    fn membership<'a>(&'a self, instance: &'a str) -> CloudFuture<'a, Option<Membership>> {
        Box::pin(async move {
            let answer = self.autoscaling.describe_auto_scaling_instances().instance_ids(instance).send().await;
            let failed = |error| CallError::new("autoscaling:DescribeAutoScalingInstances", instance, &error);
            let answer = answer.map_err(failed)?;
            Ok(answer.auto_scaling_instances().first().map(|found| Membership {
                group: found.auto_scaling_group_name().unwrap_or_default().to_owned(),
                lifecycle: found.lifecycle_state().unwrap_or_default().to_owned(),
            }))
        })
    }

    fn group<'a>(&'a self, name: &'a str) -> CloudFuture<'a, Option<Group>> {
        Box::pin(chordfs_asg::describe(&self.autoscaling, &self.ec2, name))
    }

    fn hooks<'a>(&'a self, group: &'a str) -> CloudFuture<'a, Vec<Hook>> {
        Box::pin(async move {
            let answer = self.autoscaling.describe_lifecycle_hooks().auto_scaling_group_name(group).send().await;
            let failed = |error| CallError::new("autoscaling:DescribeLifecycleHooks", group, &error);
            let answer = answer.map_err(failed)?;
            let on_termination =
                answer.lifecycle_hooks().iter().filter(|hook| hook.lifecycle_transition() == Some(TERMINATION));
            Ok(on_termination.map(hook).collect())
        })
    }

    fn policies<'a>(&'a self, group: &'a str, names: Vec<String>) -> CloudFuture<'a, Vec<FoundPolicy>> {
        Box::pin(async move {
            let request = self.autoscaling.describe_policies().auto_scaling_group_name(group);
            let answer = request.set_policy_names(Some(names)).send().await;
            let failed = |error| CallError::new("autoscaling:DescribePolicies", group, &error);
            Ok(answer.map_err(failed)?.scaling_policies().iter().map(policy).collect())
        })
    }

    fn put_policy<'a>(&'a self, group: &'a str, policy: &'a PolicySpec) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let request = self.autoscaling.put_scaling_policy().auto_scaling_group_name(group);
            let request = request.policy_name(&policy.name).policy_type(SIMPLE).adjustment_type(CHANGE_IN_CAPACITY);
            let answer = request.scaling_adjustment(policy.adjustment).cooldown(policy.cooldown_secs).send().await;
            let resource = || format!("{} of {group}", policy.name);
            answer.map(drop).map_err(|error| CallError::new("autoscaling:PutScalingPolicy", resource(), &error))
        })
    }

    fn alarms(&self, names: Vec<String>) -> CloudFuture<'_, Vec<FoundAlarm>> {
        Box::pin(async move {
            let resource = names.join(", ");
            let answer = self.cloudwatch.describe_alarms().set_alarm_names(Some(names)).send().await;
            let failed = |error| CallError::new("cloudwatch:DescribeAlarms", resource, &error);
            Ok(answer.map_err(failed)?.metric_alarms().iter().map(alarm).collect())
        })
    }

    fn put_alarm<'a>(&'a self, alarm: &'a AlarmSpec) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let of_group = Dimension::builder().name(GROUP_DIMENSION).value(&alarm.group).build();
            let answer = self
                .cloudwatch
                .put_metric_alarm()
                .alarm_name(&alarm.name)
                .alarm_description(describe(alarm))
                .namespace(&alarm.namespace)
                .metric_name(&alarm.metric)
                .dimensions(of_group)
                .statistic(match alarm.statistic {
                    Statistic::Maximum => SdkStatistic::Maximum,
                    Statistic::Average => SdkStatistic::Average,
                })
                .unit(StandardUnit::Percent)
                .comparison_operator(if alarm.above {
                    ComparisonOperator::GreaterThanThreshold
                } else {
                    ComparisonOperator::LessThanThreshold
                })
                .threshold(alarm.threshold)
                .evaluation_periods(alarm.periods)
                .datapoints_to_alarm(alarm.periods)
                .period(alarm.period_secs)
                .treat_missing_data(MISSING)
                .actions_enabled(alarm.enabled)
                .alarm_actions(&alarm.action)
                .send()
                .await;
            answer.map(drop).map_err(|error| CallError::new("cloudwatch:PutMetricAlarm", &alarm.name, &error))
        })
    }

    fn put_metrics<'a>(&'a self, namespace: &'a str, data: Vec<Datum>) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let data = data.into_iter().map(datum).collect();
            let answer =
                self.cloudwatch.put_metric_data().namespace(namespace).set_metric_data(Some(data)).send().await;
            let resource = || format!("namespace {namespace}");
            answer.map(drop).map_err(|error| CallError::new("cloudwatch:PutMetricData", resource(), &error))
        })
    }

    fn set_desired<'a>(&'a self, group: &'a str, desired: i32) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let request = self.autoscaling.set_desired_capacity().auto_scaling_group_name(group);
            // The cooldown belongs to simple policies; whoever has chosen a size has waited as long as necessary.
            let answer = request.desired_capacity(desired).honor_cooldown(false).send().await;
            answer.map(drop).map_err(|error| CallError::new("autoscaling:SetDesiredCapacity", group, &error))
        })
    }

    fn heartbeat<'a>(&'a self, hold: &'a HeldInstance) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let request = self.autoscaling.record_lifecycle_action_heartbeat().auto_scaling_group_name(&hold.group);
            let answer = request.lifecycle_hook_name(&hold.hook).instance_id(&hold.instance).send().await;
            let failed =
                |error| CallError::new("autoscaling:RecordLifecycleActionHeartbeat", hold.description(), &error);
            answer.map(drop).map_err(failed)
        })
    }

    fn complete<'a>(&'a self, hold: &'a HeldInstance) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let request = self.autoscaling.complete_lifecycle_action().auto_scaling_group_name(&hold.group);
            let request = request.lifecycle_hook_name(&hold.hook).instance_id(&hold.instance);
            let answer = request.lifecycle_action_result("CONTINUE").send().await;
            let failed = |error| CallError::new("autoscaling:CompleteLifecycleAction", hold.description(), &error);
            answer.map(drop).map_err(failed)
        })
    }

    fn secret<'a>(&'a self, name: &'a str) -> CloudFuture<'a, Option<String>> {
        Box::pin(async move {
            match self.secrets.get_secret_value().secret_id(name).send().await {
                Ok(answer) => Ok(Some(answer.secret_string().unwrap_or_default().to_owned())),
                Err(error) if is(&error, |error| error.is_resource_not_found_exception()) => Ok(None),
                Err(error) => Err(CallError::new("secretsmanager:GetSecretValue", name, &error)),
            }
        })
    }

    fn create_secret<'a>(&'a self, name: &'a str, text: String) -> CloudFuture<'a, bool> {
        Box::pin(async move {
            match self.secrets.create_secret().name(name).description(SECRET).secret_string(text).send().await {
                Ok(_) => Ok(true),
                Err(error) if is(&error, |error| error.is_resource_exists_exception()) => Ok(false),
                Err(error) => Err(CallError::new("secretsmanager:CreateSecret", name, &error)),
            }
        })
    }

    fn mark_unhealthy<'a>(&'a self, instance: &'a str) -> CloudFuture<'a, ()> {
        Box::pin(async move {
            let request = self.autoscaling.set_instance_health().instance_id(instance).health_status("Unhealthy");
            let answer = request.should_respect_grace_period(false).send().await;
            let failed = |error| CallError::new("autoscaling:SetInstanceHealth", instance, &error);
            answer.map(drop).map_err(failed)
        })
    }
}

const TERMINATION: &str = "autoscaling:EC2_INSTANCE_TERMINATING";
const SIMPLE: &str = "SimpleScaling";
const CHANGE_IN_CAPACITY: &str = "ChangeInCapacity";
const GROUP_DIMENSION: &str = "AutoScalingGroupName";

impl HeldInstance {
    fn description(&self) -> String {
        format!("hook {} of {} for {}", self.hook, self.group, self.instance)
    }
}

fn hook(found: &autoscaling::types::LifecycleHook) -> Hook {
    let secs = |value: i32| u64::try_from(value).unwrap_or(0);
    let heartbeat = found.heartbeat_timeout().unwrap_or(DEFAULT_HEARTBEAT_SECS);
    Hook {
        name: found.lifecycle_hook_name().unwrap_or_default().to_owned(),
        heartbeat_secs: secs(heartbeat),
        global_secs: secs(found.global_timeout().unwrap_or(heartbeat.saturating_mul(100)).min(MAX_GLOBAL_SECS)),
    }
}

fn policy(found: &autoscaling::types::ScalingPolicy) -> FoundPolicy {
    let simple = found.policy_type().is_none_or(|kind| kind == SIMPLE)
        && found.adjustment_type().is_some_and(|kind| kind == CHANGE_IN_CAPACITY);
    FoundPolicy {
        name: found.policy_name().unwrap_or_default().to_owned(),
        arn: found.policy_arn().unwrap_or_default().to_owned(),
        adjustment: found.scaling_adjustment().filter(|_| simple),
        cooldown_secs: found.cooldown(),
    }
}

fn describe(alarm: &AlarmSpec) -> String {
    let side = if alarm.above { "above" } else { "below" };
    let what = match alarm.statistic {
        Statistic::Maximum => "the fullest disk",
        Statistic::Average => "the average of the disks",
    };
    format!("chordfs: {what} of {} is {side} {}%", alarm.group, alarm.threshold)
}

fn alarm(found: &MetricAlarm) -> FoundAlarm {
    plain_alarm(found).map_or_else(|| other_alarm(found), FoundAlarm::Plain)
}

/// Returns `None` if any property differs in kind from what `put_alarm` writes.
fn plain_alarm(found: &MetricAlarm) -> Option<AlarmSpec> {
    let [dimension] = found.dimensions() else { return None };
    let [action] = found.alarm_actions() else { return None };
    let as_we_write = found.metrics().is_empty()
        && found.unit().is_none_or(|unit| *unit == StandardUnit::Percent)
        && found.treat_missing_data().is_none_or(|how| how == MISSING)
        && found.datapoints_to_alarm().is_none_or(|points| Some(points) == found.evaluation_periods())
        && dimension.name() == Some(GROUP_DIMENSION);
    let statistic = match found.statistic()? {
        SdkStatistic::Maximum => Statistic::Maximum,
        SdkStatistic::Average => Statistic::Average,
        _ => return None,
    };
    let above = match found.comparison_operator()? {
        ComparisonOperator::GreaterThanThreshold => true,
        ComparisonOperator::LessThanThreshold => false,
        _ => return None,
    };
    as_we_write.then_some(AlarmSpec {
        name: found.alarm_name()?.to_owned(),
        namespace: found.namespace()?.to_owned(),
        metric: found.metric_name()?.to_owned(),
        group: dimension.value()?.to_owned(),
        statistic,
        above,
        threshold: found.threshold()?,
        periods: found.evaluation_periods()?,
        period_secs: found.period()?,
        action: action.clone(),
        enabled: found.actions_enabled().unwrap_or(true),
    })
}

fn other_alarm(found: &MetricAlarm) -> FoundAlarm {
    let in_formula = found.metrics().iter().filter_map(|query| query.metric_stat()?.metric());
    let inner = in_formula.flat_map(|metric| metric.dimensions());
    let mut groups: Vec<String> = found
        .dimensions()
        .iter()
        .chain(inner)
        .filter(|dimension| dimension.name() == Some(GROUP_DIMENSION))
        .filter_map(|dimension| dimension.value().map(str::to_owned))
        .collect();
    groups.sort();
    groups.dedup();
    let metrics = found.metrics().iter().filter(|query| query.metric_stat().is_some()).count();
    FoundAlarm::Other { name: found.alarm_name().unwrap_or_default().to_owned(), metrics, groups }
}

fn datum(datum: Datum) -> MetricDatum {
    let dimensions =
        datum.dimensions.into_iter().map(|(name, value)| Dimension::builder().name(name).value(value).build());
    let resolution = if datum.is_high_resolution { 1 } else { 60 };
    MetricDatum::builder()
        .metric_name(datum.metric)
        .set_dimensions(Some(dimensions.collect()))
        .unit(match datum.unit {
            MetricUnit::Percent => StandardUnit::Percent,
            MetricUnit::Count => StandardUnit::Count,
            MetricUnit::Bytes => StandardUnit::Bytes,
        })
        .value(datum.value)
        .storage_resolution(resolution)
        .build()
}
