//! gRPC service configs: what the owner of a service wants of its clients.

use std::{collections::BTreeMap, fmt, time::Duration};

use portcullis_core::Invalid;
use portcullis_http::{GrpcClassifier, GrpcCodes, GrpcRetryable};
use portcullis_retry::{Backoff, Jitter, OperationConfig, RetryBuilder, ThrottlingConfig};
use portcullis_timeout::{Limits, TimeoutBuilder};
use serde_json::{Map, Value};

/// A gRPC service config, as far as it is about timeouts and retries: `methodConfig` with `name`, `timeout`
/// and `retryPolicy`, and `retryThrottling` (gRFC A6 and gRPC's `service_config.md`). Whatever else it says,
/// as `waitForReady` or a load balancing policy, is not looked at.
///
/// ```
/// use portcullis::{ServiceConfig, Stack};
///
/// let config = ServiceConfig::parse(r#"{
///     "methodConfig": [{
///         "name": [{ "service": "shop.Cart" }],
///         "timeout": "1.5s",
///         "retryPolicy": {
///             "maxAttempts": 4,
///             "initialBackoff": "0.1s",
///             "maxBackoff": "1s",
///             "backoffMultiplier": 2,
///             "retryableStatusCodes": ["UNAVAILABLE"]
///         }
///     }],
///     "retryThrottling": { "maxTokens": 10, "tokenRatio": 0.1 }
/// }"#)?;
/// let stack = Stack::production("shop").service_config(&config).build()?;
/// # let _ = stack;
/// # Ok::<_, portcullis::Invalid>(())
/// ```
///
/// # What holds for a call
///
/// What is said of its method; else what is said of its service; else what is said of an empty name; and of
/// these one alone, nothing is put together from two. The method is told by the name of the call's
/// operation, as `shop.Cart/Add`. A method for which there is no `retryPolicy` is not retried, though what
/// [nobody saw](portcullis_core::Replay::Unprocessed) is sent again; one for which there is no `timeout` has
/// the stack's. What the caller says for one call stands above the config.
///
/// More than 5 attempts are read as 5, and backoffs beyond a day as a day.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ServiceConfig {
    /// By the name of the operation, or of the group of a service's; the empty one is for the rest.
    methods: BTreeMap<String, Method>,
    throttling: Option<ThrottlingConfig>,
}

/// What is said of some methods.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Method {
    timeout: Option<Duration>,
    retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Retry {
    max_attempts: u32,
    backoff: Backoff,
    codes: GrpcCodes,
}

/// The most attempts that a service config may ask for (gRFC A6, "Limits on Retries and Hedges").
const MOST_ATTEMPTS: u64 = 5;
/// What chance does to a backoff (gRFC A6, "Exponential Backoff").
const JITTER: Jitter = Jitter::Around(0.2);
/// The longest backoff that retries have.
const DAY: Duration = Duration::from_secs(86_400);
/// The longest duration in protobuf's JSON: some ten thousand years.
const LONGEST_SECS: u64 = 315_576_000_000;

// ===== impl ServiceConfig =====

impl ServiceConfig {
    /// Reads a service config in JSON.
    ///
    /// # Errors
    ///
    /// What is not as gRFC A6 wants it: where it is, which field, its value and what is allowed. A
    /// `hedgingPolicy` is an error, too: there is no hedging here, and to leave it out would be to change
    /// what the service's owner wants.
    pub fn parse(json: &str) -> Result<Self, Invalid> {
        let value: Value = serde_json::from_str(json)
            .map_err(|error| Invalid::new("service config", error.to_string(), "JSON"))?;
        let Value::Object(config) = &value else {
            return Err(wrong("service config", &value, "an object"));
        };
        let mut methods = BTreeMap::new();
        for (n, entry) in array(config, "methodConfig")?.iter().enumerate() {
            let at = |invalid: Invalid| invalid.within(format!("methodConfig[{n}]"));
            let Value::Object(entry) = entry else {
                return Err(at(wrong("methodConfig", entry, "an object")));
            };
            let method = Method::read(entry).map_err(at)?;
            for name in array(entry, "name").map_err(at)? {
                let name = operation(name).map_err(at)?;
                if methods.insert(name.clone(), method).is_some() {
                    return Err(at(Invalid::new("name", name, "each name once")));
                }
            }
        }
        let throttling = match config.get("retryThrottling") {
            None | Some(Value::Null) => None,
            Some(Value::Object(throttling)) => {
                let at = |invalid: Invalid| invalid.within("retryThrottling");
                Some(throttled(throttling).map_err(at)?)
            }
            Some(other) => return Err(wrong("retryThrottling", other, "an object")),
        };
        Ok(Self { methods, throttling })
    }

    /// Retries as the config has them: attempts, backoff and its jitter by method, and throttling in place
    /// of a budget if the config has any.
    pub fn retries<K, C>(&self, mut retry: RetryBuilder<K, C>) -> RetryBuilder<K, C> {
        retry = retry.max_attempts(1);
        for (name, method) in &self.methods {
            let once = OperationConfig::new().with_max_attempts(1);
            let set = method.retry.map_or(once, |policy| {
                OperationConfig::new()
                    .with_max_attempts(policy.max_attempts)
                    .with_backoff(policy.backoff)
                    .with_jitter(JITTER)
            });
            retry = match (name.as_str(), method.retry) {
                ("", None) => retry,
                ("", Some(Retry { max_attempts, backoff, .. })) => {
                    retry.max_attempts(max_attempts).backoff(backoff).jitter(JITTER)
                }
                (name, _) => retry.operation(name, set),
            };
        }
        match self.throttling {
            Some(throttling) => retry.throttling(throttling),
            None => retry,
        }
    }

    /// The total limits that the config has, by method. It sets no others.
    pub fn timeouts<C>(&self, mut timeout: TimeoutBuilder<C>) -> TimeoutBuilder<C> {
        let rest = self.methods.get("").and_then(|method| method.timeout);
        // One without a limit takes neither its service's nor the one of the rest.
        let stacks = match rest {
            Some(_) => Limits::new().with_total(timeout.limits().total.unwrap_or(Limits::NEVER)),
            None => Limits::new(),
        };
        for (name, method) in self.methods.iter().filter(|(name, _)| !name.is_empty()) {
            let own = method.timeout.map(|limit| Limits::new().with_total(limit));
            timeout = timeout.operation(name, own.unwrap_or(stacks));
        }
        match rest {
            Some(limit) => timeout.total(limit),
            None => timeout,
        }
    }

    /// A classifier that knows which codes may be sent again, by method.
    #[must_use]
    pub fn classifier(&self) -> GrpcClassifier {
        let policies = self.methods.iter().filter_map(|(name, method)| {
            Some((name.as_str(), GrpcRetryable::of(method.retry?.codes)))
        });
        policies.fold(GrpcClassifier::new(), |grpc, (name, codes)| match name {
            "" => grpc.retryable(codes),
            name => grpc.retryable_for(name, codes),
        })
    }
}

// ===== impl Method =====

impl Method {
    fn read(entry: &Map<String, Value>) -> Result<Self, Invalid> {
        if let Some(hedging) = entry.get("hedgingPolicy").filter(|it| !it.is_null()) {
            let allowed = "none: a retryPolicy, for there is no hedging";
            return Err(wrong("hedgingPolicy", hedging, allowed));
        }
        let timeout = match entry.get("timeout") {
            None | Some(Value::Null) => None,
            Some(value) => Some(duration("timeout", value)?),
        };
        let retry = match entry.get("retryPolicy") {
            None | Some(Value::Null) => None,
            Some(Value::Object(policy)) => {
                Some(Retry::read(policy).map_err(|invalid| invalid.within("retryPolicy"))?)
            }
            Some(other) => return Err(wrong("retryPolicy", other, "an object")),
        };
        Ok(Self { timeout, retry })
    }
}

// ===== impl Retry =====

impl Retry {
    fn read(policy: &Map<String, Value>) -> Result<Self, Invalid> {
        let max_attempts = whole(policy, "maxAttempts", 2..=u64::MAX, "a whole number from 2")?;
        let max = duration("maxBackoff", field(policy, "maxBackoff"))?.min(DAY);
        let initial = duration("initialBackoff", field(policy, "initialBackoff"))?.min(max);
        let multiplier = positive(policy, "backoffMultiplier")?;
        Ok(Self {
            max_attempts: max_attempts.min(MOST_ATTEMPTS) as u32,
            backoff: Backoff::Exponential { initial, multiplier, max },
            codes: codes(field(policy, "retryableStatusCodes"))?,
        })
    }
}

/// The operation that a name is of: `shop.Cart/Add`, `shop.Cart/` for all of a service, and nothing for the
/// rest.
fn operation(name: &Value) -> Result<String, Invalid> {
    let Value::Object(name) = name else {
        return Err(wrong("name", name, "an object with `service` and `method`"));
    };
    let part = |field: &'static str| match name.get(field) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(part)) if !part.contains('/') => Ok(part.as_str()),
        Some(other) => Err(wrong(field, other, "a name without a slash")),
    };
    match (part("service")?, part("method")?) {
        ("", "") => Ok(String::new()),
        ("", method) => Err(Invalid::new("method", method, "empty, where `service` is empty")),
        (service, method) => Ok(format!("{service}/{method}")),
    }
}

fn codes(value: &Value) -> Result<GrpcCodes, Invalid> {
    const FIELD: &str = "retryableStatusCodes";
    let Some(listed) = value.as_array().filter(|listed| !listed.is_empty()) else {
        return Err(wrong(FIELD, value, "a list of at least one status code"));
    };
    listed.iter().try_fold(GrpcCodes::NONE, |codes, value| {
        let code = match value {
            Value::String(name) => GrpcCodes::from_name(name),
            number => number
                .as_u64()
                .and_then(|number| u8::try_from(number).ok())
                .and_then(GrpcCodes::from_code),
        };
        let allowed = "status codes of gRPC's, by name or number";
        code.map(|code| codes | code).ok_or_else(|| wrong(FIELD, value, allowed))
    })
}

fn throttled(throttling: &Map<String, Value>) -> Result<ThrottlingConfig, Invalid> {
    let most = ThrottlingConfig::MAX_TOKENS.into();
    let tokens = whole(throttling, "maxTokens", 1..=most, "a whole number from 1 to 1000")?;
    let config = ThrottlingConfig::new(tokens as u32, positive(throttling, "tokenRatio")?);
    config.validate().map_err(|invalid| {
        Invalid::new("tokenRatio", config.token_ratio, invalid.allowed().to_owned())
    })?;
    Ok(config)
}

/// A duration of protobuf's in JSON: seconds with at most 9 decimals, and an `s`. Above 0.
fn duration(field: &'static str, value: &Value) -> Result<Duration, Invalid> {
    let seconds = value.as_str().and_then(|text| text.strip_suffix('s'));
    seconds
        .and_then(|text| {
            let (whole, decimals) = match text.split_once('.') {
                Some((whole, decimals)) => (whole, decimals),
                None => (text, "0"),
            };
            // A number as JSON has it: digits, and no zero in front of others.
            let is_number = |digits: &str| {
                !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit())
            };
            let plain = is_number(whole) && (whole == "0" || !whole.starts_with('0'));
            if !plain || !is_number(decimals) || decimals.len() > 9 {
                return None;
            }
            let seconds = whole.parse().ok().filter(|seconds| *seconds <= LONGEST_SECS)?;
            let nanos = format!("{decimals:0<9}").parse().ok()?;
            Some(Duration::new(seconds, nanos))
        })
        .filter(|duration| !duration.is_zero())
        .ok_or_else(|| wrong(field, value, "a duration above 0, as \"1.5s\""))
}

fn array<'a>(of: &'a Map<String, Value>, name: &'static str) -> Result<&'a [Value], Invalid> {
    match of.get(name) {
        None | Some(Value::Null) => Ok(&[]),
        Some(Value::Array(values)) => Ok(values),
        Some(other) => Err(wrong(name, other, "a list")),
    }
}

fn whole(
    of: &Map<String, Value>,
    name: &'static str,
    range: std::ops::RangeInclusive<u64>,
    allowed: &str,
) -> Result<u64, Invalid> {
    let value = field(of, name);
    value
        .as_u64()
        .filter(|number| range.contains(number))
        .ok_or_else(|| wrong(name, value, allowed))
}

fn positive(of: &Map<String, Value>, name: &'static str) -> Result<f64, Invalid> {
    let value = field(of, name);
    value
        .as_f64()
        .filter(|number| *number > 0.0 && number.is_finite())
        .ok_or_else(|| wrong(name, value, "a number above 0"))
}

/// What a field is set to; null if it is missing.
fn field<'a>(of: &'a Map<String, Value>, name: &str) -> &'a Value {
    of.get(name).unwrap_or(&Value::Null)
}

fn wrong(field: &'static str, value: &Value, allowed: &str) -> Invalid {
    /// As it is written in the config; the middle of what is long is of no help.
    struct Written<'a>(&'a Value);

    impl fmt::Debug for Written<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            const LONGEST: usize = 80;
            let text = self.0.to_string();
            match text.char_indices().nth(LONGEST) {
                Some((end, _)) => write!(f, "{}…", &text[..end]),
                None => f.write_str(&text),
            }
        }
    }

    Invalid::new(field, Written(value), allowed)
}
