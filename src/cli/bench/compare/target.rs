//! A target, as it is written on the command line.
//!
//! Invariant: a target that was read has a name, an address and a protocol.
//!
//! Deliberately absent: whether the target can be reached.

use std::str::FromStr;

use crate::cli::bench::Protocol;

/// What is compared with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) name: String,
    pub(super) addresses: Vec<String>,
    pub(super) protocol: Protocol,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!("{text:?} is not NAME=ADDRESS, as in mosquitto=127.0.0.1:1883 or wamp=ws://127.0.0.1:9031/")
        };
        let (name, rest) = text.split_once('=').ok_or_else(malformed)?;
        let (rest, named) = match rest.rsplit_once(':') {
            Some((rest, "mqtt")) => (rest, Some(Protocol::Mqtt)),
            Some((rest, "wamp")) => (rest, Some(Protocol::Wamp)),
            _ => (rest, None),
        };
        let addresses: Vec<String> = rest.split(',').map(str::to_owned).collect();
        if name.is_empty() || addresses.iter().any(String::is_empty) {
            return Err(malformed());
        }
        let is_url =
            |address: &&String| ["ws://", "wss://"].iter().any(|one| address.starts_with(one));
        let urls = addresses.iter().filter(is_url).count();
        let seen = if urls > 0 { Protocol::Wamp } else { Protocol::Mqtt };
        let protocol = named.unwrap_or(seen);
        let expected = if protocol == Protocol::Wamp { addresses.len() } else { 0 };
        if urls != expected {
            return Err(format!(
                "{text:?}: WAMP has URLs, as in ws://127.0.0.1:9031/, and MQTT has host:port"
            ));
        }
        Ok(Self { name: name.to_owned(), addresses, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let (one, two) = ("127.0.0.1:1881", "127.0.0.1:1882");
        let url = "ws://127.0.0.1:9031/";
        for (text, name, addresses, protocol) in [
            ("a=127.0.0.1:1881", "a", vec![one], Protocol::Mqtt),
            ("a=127.0.0.1:1881:mqtt", "a", vec![one], Protocol::Mqtt),
            ("a b=127.0.0.1:1881,127.0.0.1:1882", "a b", vec![one, two], Protocol::Mqtt),
            ("w=ws://127.0.0.1:9031/", "w", vec![url], Protocol::Wamp),
            ("w=ws://127.0.0.1:9031/:wamp", "w", vec![url], Protocol::Wamp),
            ("s=wss://h:1/", "s", vec!["wss://h:1/"], Protocol::Wamp),
            ("s=mqtts://h:1", "s", vec!["mqtts://h:1"], Protocol::Mqtt),
            ("q=ws://h/?a=b", "q", vec!["ws://h/?a=b"], Protocol::Wamp),
        ] {
            let addresses = addresses.into_iter().map(str::to_owned).collect();
            let expected = Target { name: name.into(), addresses, protocol };
            assert_eq!(text.parse(), Ok(expected), "{text}");
        }
        for text in [
            "",
            "a",
            "a=",
            "=127.0.0.1:1",
            "a=127.0.0.1:1,",
            "a=127.0.0.1:1:wamp",
            "a=ws://h/:mqtt",
            "a=ws://h/,127.0.0.1:1",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
