//! Table tests: each mistake gets its own clear message, and a written configuration is read back unchanged.

use super::listener::{ClientCertificates, ListenerProtocol, TlsFiles};
use super::*;

const GOOD: &str = r#"
cluster = "vulpes"
node = 1
data = "data/1"
realms = ["realm1", "realm2"]
default_realm = "realm2"
[listen]
wamp = "127.0.0.1:9031"
mqtt = "127.0.0.1:1881"
admin = "127.0.0.1:9081"
[[nodes]]
id = 2
peer = "node2.example:1735"
roles = ["sync", "storage"]
[[nodes]]
id = 1
peer = "127.0.0.1:1735"
admin = "127.0.0.1:9081"
roles = ["entry"]
[timing]
heartbeat_ms = 50
"#;

fn parse(text: &str) -> Result<NodeConfig, String> {
    NodeConfig::parse(text, Path::new("etc/node1.toml")).map_err(|error| error.to_string())
}

#[test]
fn a_good_file_is_read() {
    let config = parse(GOOD).unwrap();
    assert_eq!(config.data, Path::new("etc/data/1"));
    assert_eq!(config.default_realm.as_str(), "realm2");
    assert_eq!(config.timing.heartbeat, Duration::from_millis(50));
    assert_eq!(config.timing.lease, Duration::from_secs(3));
    assert_eq!(config.listen.peer.as_str(), "127.0.0.1:1735");
    assert!(config.has(Role::Entry) && !config.has(Role::Sync));
    let ids: Vec<u64> = config.nodes.iter().map(|member| member.id.0).collect();
    assert_eq!(ids, [1, 2]);
    assert_eq!(config.nodes[1].roles, [Role::Storage, Role::Sync]);
    assert_eq!(config.with_role(Role::Storage).count(), 1);
}

#[test]
fn the_example_is_read_and_shows_the_defaults() {
    let config = NodeConfig::parse(
        include_str!("../../demo/vulpes.example.toml"),
        Path::new("demo/vulpes.example.toml"),
    )
    .unwrap();
    assert_eq!(config.timing, Timing::default());
    assert_eq!(config.nodes.len(), 3);
}

#[test]
fn what_is_written_is_read_back() {
    let mut config = parse(GOOD).unwrap();
    config.cluster = "a \"quoted\" name \\ with 'everything'".into();
    config.data = "/absolute/data".into();
    config.listen.peer = "0.0.0.0:1735".parse().unwrap();
    config.insecure = true;
    config.low_water = disk::LowWater::Bytes(3 << 30);
    let quota = limits::Quota { connections: Some(3), ..limits::Quota::default() };
    let roles = [("a.b".to_owned(), limits::Quota::default()), ("c".into(), quota)].into();
    config.limits =
        limits::Limits { anonymous_log: None, address: quota, roles, ..Default::default() };
    config.listen.origins = vec!["https://app.example".into(), "*".into()];
    config.listen.hosts = vec!["vulpes.example".into()];
    assert_eq!(parse(&config.to_toml()), Ok(config));
}

#[test]
fn tokens_are_read_and_written_back() {
    let with = |table: &str| parse(&GOOD.replace("[timing]", &format!("[jwt]\n{table}\n[timing]")));
    for table in [
        "jwks = \"keys.json\"",
        "public_key = \"/etc/key.pem\"\nissuers = [\"https://id.example\"]\naudiences = [\"a\", \"b\"]",
        "secret = \"secret\"\nleeway_seconds = 600",
    ] {
        let mut config = with(table).unwrap();
        config.data = "/absolute/data".into();
        let keys = &mut config.tokens.as_mut().unwrap().keys;
        if let tokens::KeyFile::Jwks(path) | tokens::KeyFile::Secret(path) = keys {
            assert!(path.starts_with("etc"), "{}", path.display());
            *path = Path::new("/").join(&*path);
        }
        assert_eq!(parse(&config.to_toml()), Ok(config), "{table}");
    }
    for (table, problem) in [
        ("", "jwt: name one file of keys: jwks, public_key or secret"),
        ("jwks = \"a\"\nsecret = \"b\"", "jwt: name one file of keys"),
        ("secret = \"\"", "jwt: name one file of keys"),
        ("secret = \"a\"\nleeway_seconds = 601", "jwt: leeway_seconds is 601"),
        ("secret = \"a\"\nkeys = 1", "unknown field `keys`"),
    ] {
        let error = with(table).unwrap_err();
        assert!(error.contains(problem), "{table}: {error}");
    }
}

#[test]
fn limits_are_read_and_their_mistakes_are_told() {
    let with = |table: &str| parse(&GOOD.replace("[timing]", &format!("{table}\n[timing]")));
    let limits = with("[limits.user]\nconnections = 1\n[limits.role.x]").unwrap().limits;
    assert_eq!(limits.of_user(&[]).connections, Some(1));
    assert_eq!(limits.of_user(&["x".into()]).connections, None, "the role has no limits");
    for (table, problem) in [
        ("[limits.user]\nconnections = 0", "limits.user.connections: 0 is outside of 1 to"),
        ("[limits.role.x]\nbytes_per_second = 1000000000001", "limits.role.x.bytes_per_second: "),
        ("[limits.role.\"a b\"]", "limits.role: \"a b\" can't be the name of a role"),
        ("[limits.address]\nsessions = 1", "unknown field `sessions`"),
        (
            "[limits]\nanonymous_log_kib_per_second = 9999999999",
            "limits.anonymous_log_kib_per_second",
        ),
        ("[disk]\nlow_water = \"much\"", "disk.low_water: \"much\" is neither a size nor a share"),
    ] {
        let error = with(table).unwrap_err();
        assert!(error.contains(problem), "{table}: {error}");
    }
}

#[test]
fn certificates_may_name_users() {
    let with = |protocol: &str, tls: &str| {
        parse(&with_listeners(&format!(
            "[[listener]]\nprotocol = \"{protocol}\"\naddress = \"0.0.0.0:8883\"\n[listener.tls]\n\
             certificate = \"/node.pem\"\nkey = \"/node.key\"\ncertificate_user = true\n{tls}"
        )))
    };
    let asked = "client_ca = \"/ca.pem\"\nclient_certificates = \"ask\"";
    let mut config = with("mqtt", asked).unwrap();
    assert!(config.listeners[0].certificate_user);
    config.data = "/absolute/data".into();
    assert_eq!(parse(&config.to_toml()), Ok(config));
    let error = with("wamp", "client_revoked = \"/revoked.pem\"").unwrap_err();
    assert!(error.contains("tls.client_revoked is given, but clients are not asked"), "{error}");
    let error = with("wamp", "").unwrap_err();
    assert!(error.contains("tls.certificate_user is set, but clients are not asked"), "{error}");
    let error = with("admin", asked).unwrap_err();
    assert!(error.contains("tls.certificate_user is for mqtt and wamp"), "{error}");
}

/// The same with these listeners beside `[listen]`.
fn with_listeners(listeners: &str) -> String {
    GOOD.replace("[[nodes]]\nid = 2", &format!("{listeners}\n[[nodes]]\nid = 2"))
}

const LISTENERS_TEXT: &str = r#"
[[listener]]
protocol = "mqtt"
address = "0.0.0.0:8883"
[listener.tls]
certificate = "tls/node.pem"
key = "/keys/node.key"
client_ca = "tls/clients.pem"
client_certificates = "require"
[[listener]]
protocol = "wamp"
address = "node1.example:9443"
[listener.tls]
certificate = "tls/node.pem"
key = "/keys/node.key"
[[listener]]
protocol = "admin"
address = "[::1]:9082"
"#;

#[test]
fn listeners_are_read_and_read_back() {
    let mut config = parse(&with_listeners(LISTENERS_TEXT)).unwrap();
    let [mqtt, wamp, admin] = &config.listeners[..] else { panic!("{:?}", config.listeners) };
    assert_eq!((mqtt.protocol, mqtt.address.port()), (ListenerProtocol::Mqtt, 8883));
    let tls = mqtt.tls.as_ref().unwrap();
    assert_eq!(tls.certificate, Path::new("etc/tls/node.pem"), "relative to the file, as data is");
    assert_eq!(tls.key, Path::new("/keys/node.key"));
    let ca = "etc/tls/clients.pem".into();
    assert_eq!(tls.clients, ClientCertificates::Require { ca });
    assert_eq!(wamp.tls.as_ref().unwrap().clients, ClientCertificates::None);
    assert_eq!((admin.protocol, &admin.tls), (ListenerProtocol::Admin, &None));
    assert!(origins::Origins::of(&config).allows("https://node1.example"));
    config.data = "/absolute/data".into();
    let tls = |clients: ClientCertificates| {
        let (certificate, key) = ("/a b/\"node\".pem".into(), "/node.key".into());
        let revoked = clients.ca().map(|_| "/revoked.pem".into());
        Some(TlsFiles { certificate, key, clients, revoked })
    };
    let ca = || "/ca.pem".into();
    config.listeners[0].tls = tls(ClientCertificates::Require { ca: ca() });
    config.listeners[1].tls = tls(ClientCertificates::Ask { ca: ca() });
    config.listeners[2].tls = tls(ClientCertificates::None);
    assert_eq!(parse(&config.to_toml()), Ok(config));
}

const PEER_TLS: &str =
    "[peer_tls]\ncertificate = \"n.pem\"\nkey = \"/keys/n.key\"\nca = \"ca.pem\"";

#[test]
fn files_for_the_node_port_are_read_and_read_back() {
    let mut config = parse(&with_listeners(PEER_TLS)).unwrap();
    let files = config.peer_tls.as_mut().unwrap();
    assert_eq!(files.certificate, Path::new("etc/n.pem"), "relative to the file, as data is");
    assert_eq!((&*files.key, &*files.ca), (Path::new("/keys/n.key"), Path::new("etc/ca.pem")));
    config.data = "/absolute/data".into();
    (files.certificate, files.ca) = ("/a b/\"n\".pem".into(), "/ca.pem".into());
    assert_eq!(parse(&config.to_toml()), Ok(config));
    for (from, to, expected) in [
        ("certificate = \"n.pem\"", "", "missing field `certificate`"),
        ("key = \"/keys/n.key\"", "", "missing field `key`"),
        ("ca = \"ca.pem\"", "", "missing field `ca`"),
        ("\"ca.pem\"", "\"\"", "peer_tls.ca is empty; name a PEM file"),
        ("ca =", "client_ca =", "unknown field `client_ca`"),
    ] {
        let error = parse(&with_listeners(&PEER_TLS.replacen(from, to, 1))).unwrap_err();
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
}

#[test]
fn a_node_port_beyond_loopback_needs_tls_or_a_word() {
    let with = |address: &str, top: &str, tables: &str| {
        let text = with_listeners(tables)
            .replace("[listen]\n", &format!("[listen]\npeer = \"{address}\"\n"));
        parse(&text.replacen("node = 1\n", &format!("node = 1\n{top}"), 1))
    };
    for near in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1", "localhost:1"] {
        assert!(!with(near, "", "").unwrap().insecure, "{near}");
    }
    for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "[::ffff:10.0.0.1]:1", "localhost.example:1"] {
        let error = with(far, "", "").unwrap_err();
        let expected =
            format!("has a mistake:\n- listen.peer: other machines may reach {far}, and without");
        assert!(error.contains(&expected) && error.ends_with("insecure = true"), "{error}");
        assert!(with(far, "insecure = false\n", "").is_err());
        assert!(with(far, "insecure = true\n", "").unwrap().insecure, "{far}");
        assert!(!with(far, "", PEER_TLS).unwrap().insecure, "{far}");
    }
    // Without `listen.peer`, it is the address that the others are told.
    let text = GOOD.replace("peer = \"127.0.0.1:1735\"", "peer = \"node1.example:1735\"");
    assert!(parse(&text).unwrap_err().contains("other machines may reach node1.example:1735"));
}

#[test]
fn clients_beyond_loopback_need_tls_or_a_word() {
    let far = ["0.0.0.0:1881", "10.0.0.1:1881", "[::]:1881", "host.example:1881"];
    let with = |top: &str, tables: &str, (from, to): (&str, &str)| {
        let text = with_listeners(tables).replace(from, to);
        parse(&text.replacen("node = 1\n", &format!("node = 1\n{top}"), 1))
    };
    let mqtt = "mqtt = \"127.0.0.1:1881\"";
    for address in far {
        let there = format!("mqtt = \"{address}\"");
        let error = with("", "", (mqtt, &there)).unwrap_err();
        let expected = format!("listen.mqtt: other machines may reach {address}, and nothing is");
        assert!(error.contains(&expected) && error.ends_with("insecure = true"), "{error}");
        let open = with("insecure = true\n", "", (mqtt, &there)).unwrap();
        assert_eq!(open.open_without_users(), None, "{address}");
    }
    let admin = "[[listener]]\nprotocol = \"admin\"\naddress = \"10.0.0.1:9082\"";
    let error = with("", admin, ("", "")).unwrap_err();
    assert!(error.contains("listener 1: other machines may reach 10.0.0.1:9082"), "{error}");
    // With TLS it is a matter of users.
    let config = with("", LISTENERS_TEXT, ("", "")).unwrap();
    assert_eq!(config.open_without_users().map(Address::as_str), Some("0.0.0.0:8883"));
    assert_eq!(config.hosts(), ["127.0.0.1", "::1", "node1.example"].map(str::to_owned).into());
    assert_eq!(parse(GOOD).unwrap().open_without_users(), None);
}

#[test]
fn the_first_administrator_is_read_and_read_back() {
    use crate::auth::{Cost, Password, Salts, Verifiers};
    let password = Password::new(b"pencil").unwrap();
    let made = Verifiers::derive(&password, &Salts::draw(|| 7), &Cost::CHEAP, None).unwrap();
    let first = FirstAdministrator::new("ann", &made.clone().without_keys_to_log_in_with());
    let first = first.unwrap();
    let kept = Verifiers::decode(&first.user().verifier).unwrap();
    assert!(kept != made && kept.without_keys_to_log_in_with().has_decoys());
    assert_eq!(format!("{first:?}"), "FirstAdministrator(\"ann\")");
    let mut config = parse(&with_listeners(LISTENERS_TEXT)).unwrap();
    config.data = "/absolute/data".into();
    config.listeners.clear();
    config.first_administrator = Some(first);
    let text = config.to_toml();
    assert_eq!(parse(&text), Ok(config.clone()));
    assert_eq!(config.open_without_users(), None);
    let at = text.find("verifiers = \"").unwrap() + 13;
    for (changed, expected) in [
        (text.replace("name = \"ann\"", "name = \"a b\""), "\"a b\" can't be a user's name"),
        (format!("{}!{}", &text[..at], &text[at..]), "is not what `vulpes init` has written"),
        (format!("{}{}", &text[..at], &text[text[at..].find('"').unwrap() + at..]), "is not"),
    ] {
        let error = parse(&changed).unwrap_err();
        assert!(error.contains("first_administrator: ") && error.contains(expected), "{error}");
    }
}

#[test]
fn an_entry_may_serve_clients_with_tls_alone() {
    let text = with_listeners(LISTENERS_TEXT)
        .replace("wamp = \"127.0.0.1:9031\"\nmqtt = \"127.0.0.1:1881\"\n", "");
    assert_eq!(parse(&text).unwrap().listen.mqtt, None);
}

#[test]
fn mistakes_in_listeners_have_their_messages() {
    for (from, to, expected) in [
        ("protocol = \"mqtt\"", "protocol = \"http\"", "unknown variant `http`, expected one of"),
        ("protocol = \"mqtt\"", "", "missing field `protocol`"),
        ("0.0.0.0:8883", "8883", "is not an address; write host:port"),
        ("0.0.0.0:8883", "0.0.0.0:9443", "listener 1 and listener 2 are both node1.example:9443"),
        ("0.0.0.0:8883", "127.0.0.1:1881", "listen.mqtt and listener 1 are both 127.0.0.1:1881"),
        ("[::1]:9082", "127.0.0.1:9081", "listen.admin and admin listener 3 are both"),
        ("certificate = \"tls/node.pem\"", "", "missing field `certificate`"),
        ("tls/node.pem", "", "listener 1: tls.certificate is empty; name a PEM file"),
        ("/keys/node.key", "", "listener 1: tls.key is empty"),
        ("tls/clients.pem", "", "listener 1: tls.client_ca is empty"),
        ("client_certificates = \"require\"", "", "listener 1: tls.client_ca is given, but"),
        ("\"require\"", "\"none\"", "listener 1: tls.client_ca is given, but"),
        ("\"require\"", "\"always\"", "unknown variant `always`, expected one of"),
        ("client_ca = \"tls/clients.pem\"\n", "", "is \"require\", but there is no client_ca"),
        ("client_ca =", "ca =", "unknown field `ca`"),
    ] {
        assert!(LISTENERS_TEXT.contains(from), "{from}");
        let error = parse(&with_listeners(&LISTENERS_TEXT.replacen(from, to, 1))).unwrap_err();
        assert!(error.contains(expected), "{from} -> {to}: {error}");
    }
    let sync = with_listeners(LISTENERS_TEXT).replace("[\"entry\"]", "[\"sync\"]");
    let error = parse(&sync).unwrap_err();
    assert!(error.contains("listener 1: node 1 is not an entry"), "{error}");
    assert!(error.contains("listener 2: node 1 is not an entry"), "{error}");
    assert!(!error.contains("listener 3"), "a sync has an admin port: {error}");
}

#[test]
fn the_number_of_listeners_is_limited() {
    let listeners = |count: usize| {
        let one = |number| {
            format!(
                "[[listener]]\nprotocol = \"mqtt\"\naddress = \"127.0.0.1:{}\"\n",
                20_000 + number
            )
        };
        with_listeners(&(0..count).map(one).collect::<String>())
    };
    assert_eq!(parse(&listeners(LISTENERS)).unwrap().listeners.len(), LISTENERS);
    let error = parse(&listeners(LISTENERS + 1)).unwrap_err();
    assert!(error.contains("listener: 33 are too many; a node may have 32"), "{error}");
}

#[test]
fn storages_are_in_groups_that_hold_equal_parts_of_the_shards() {
    let storage = |id: u64, group: u16| {
        format!(
            "[[nodes]]\nid = {id}\npeer = \"s{id}:1\"\nroles = [\"storage\"]\ngroup = {group}\n"
        )
    };
    let further = [storage(3, 2), storage(4, 3), storage(5, 3)].concat();
    let text = GOOD.replace("[timing]", &(further + "[timing]"));
    let mut config = parse(&text).unwrap();
    config.data = "/absolute/data".into();
    assert_eq!(config.storage_groups(), 3);
    let shards: Vec<Shards> =
        config.with_role(Role::Storage).map(|member| config.shards(member)).collect();
    assert_eq!(shards, [0, 1, 2, 2].map(|part| Shards::part(part, 3)));
    assert_eq!(parse(&config.to_toml()), Ok(config));
    let alone = parse(GOOD).unwrap();
    assert_eq!(alone.shards(&alone.nodes[1]), Shards::ALL);
    assert!(!alone.to_toml().contains("group"));
}

#[test]
fn a_realm_may_merge_what_is_retained() {
    assert!(parse(GOOD).unwrap().merging.is_empty());
    let table = "[realm.realm2]\nretain_merges = true\n[realm.realm1]\n[listen]";
    let absolute = GOOD.replace("\"data/1\"", "\"/data/1\"");
    let config = parse(&absolute.replace("[listen]", table)).unwrap();
    let merging: Vec<&str> = config.merging.iter().map(Realm::as_str).collect();
    assert_eq!(merging, ["realm2"]);
    assert_eq!(parse(&config.to_toml()), Ok(config));
}

/// Text to replace in the good file, its replacement, and what the error has to say.
const MISTAKES: &[(&str, &str, &str)] = &[
    ("\"vulpes\"", "\"\"", "cluster: the name is 1 to 64 bytes"),
    ("node = 1\n", "", "missing field `node`"),
    ("node = 1\n", "node = -1\n", "invalid value"),
    ("node = 1\n", "node = 1\nnodename = 3\n", "unknown field `nodename`"),
    ("node = 1\n", "node = 7\n", "number 7 is not among the [[nodes]]"),
    ("node = 1\n", "node = \n", "line 3"),
    ("\"data/1\"", "\"\"", "data: the path is empty"),
    ("id = 2", "id = 1", "number 1 is given twice"),
    ("id = 2", "id = 0", "numbers begin at 1"),
    ("\"sync\", ", "", "no node has the role sync"),
    (", \"storage\"", "", "no node has the role storage"),
    ("roles = [\"entry\"]", "roles = []", "node 1 has no role"),
    ("roles = [\"entry\"]", "roles = [\"sync\"]", "no node has the role entry"),
    ("roles = [\"entry\"]", "roles = [\"sync\"]", "listen.wamp: node 1 is not an entry"),
    ("roles = [\"entry\"]", "roles = [\"sync\"]", "listen.mqtt: node 1 is not an entry"),
    ("roles = [\"entry\"]", "roles = [\"entry\", \"entry\"]", "has the role entry twice"),
    ("roles = [\"entry\"]", "roles = [\"broker\"]", "unknown variant `broker`, expected one of"),
    ("roles = [\"entry\"]", "roles = [\"entry\"]\ngroup = 1", "node 1 has a storage group, but"),
    ("id = 2", "id = 2\ngroup = 0", "node 2 has the storage group 0"),
    ("id = 2", "id = 2\ngroup = 2", "no node is in storage group 1, but one is in 2"),
    ("node2.example:1735", "node2.example", "is not an address; write host:port"),
    ("node2.example:1735", "ws://node2.example:1735", "is not an address"),
    ("node2.example:1735", "node2.example:99999", "is not an address"),
    ("node2.example:1735", "::1:1735", "is not an address"),
    ("node2.example:1735", "node2.example:0", "has port 0"),
    ("node2.example:1735", "0.0.0.0:1735", "names no machine"),
    ("node2.example:1735", "127.0.0.1:1735", "are both 127.0.0.1:1735"),
    ("node2.example:1735", "127.0.0.1:9031", "are both 127.0.0.1:9031"),
    (
        "mqtt = \"127.0.0.1:1881\"",
        "mqtt = \"127.0.0.1:9031\"",
        "listen.wamp and listen.mqtt are both",
    ),
    (
        "mqtt = \"127.0.0.1:1881\"",
        "mqtt = \"0.0.0.0:1735\"",
        "listen.peer and listen.mqtt are both",
    ),
    ("[\"realm1\", \"realm2\"]", "[]", "realms: the list is empty"),
    ("[\"realm1\", \"realm2\"]", "[\"realm2\", \"a b\"]", "\"a b\" is not a realm name"),
    ("[\"realm1\", \"realm2\"]", "[\"realm2\", \"realm2\"]", "realm2 is given twice"),
    ("default_realm = \"realm2\"", "default_realm = \"x\"", "\"x\" is not among the realms"),
    ("[listen]", "[realm.other]\nretain_merges = true\n[listen]", "realm.\"other\": there is no"),
    ("[listen]", "[listen]\norigins = [\"app.example\"]", "\"app.example\" is not an origin"),
    ("[listen]", "[realm.realm1]\nmerges = true\n[listen]", "unknown field `merges`"),
    ("heartbeat_ms = 50", "heartbeat_ms = 0", "0 ms is outside of 10 to 10000 ms"),
    ("heartbeat_ms = 50", "heartbeat_ms = 400", "must be at least twice heartbeat_ms"),
    ("heartbeat_ms = 50", "election_max_ms = 400", "must be more than election_min_ms"),
    ("heartbeat_ms = 50", "lease_ms = 1000", "must be at least twice election_max_ms"),
    ("heartbeat_ms = 50", "heartbeat = 50", "unknown field `heartbeat`"),
    ("heartbeat_ms = 50", "[retention]\nage_hours = 0", "age_hours: 0 is outside of 1 to 876000"),
    ("heartbeat_ms = 50", "[retention]\nsize_mib = 0", "size_mib: 0 is outside of 1 to"),
    ("heartbeat_ms = 50", "[retention]\nsize = 1", "unknown field `size`"),
];

#[test]
fn every_mistake_has_its_message() {
    for (from, to, expected) in MISTAKES {
        assert!(GOOD.contains(from), "{from}");
        let error = parse(&GOOD.replacen(from, to, 1)).unwrap_err();
        assert!(error.contains(expected), "{from} -> {to}: {error}");
        assert!(error.contains("etc/node1.toml"), "{error}");
    }
}

#[test]
fn an_entry_has_to_serve_some_client() {
    let text = GOOD.replace("wamp = \"127.0.0.1:9031\"\nmqtt = \"127.0.0.1:1881\"\n", "");
    assert!(parse(&text).unwrap_err().contains("neither listen.wamp nor listen.mqtt"));
}

#[test]
fn all_mistakes_are_told_at_once() {
    let text = GOOD.replace("\"vulpes\"", "\"\"").replace("id = 2", "id = 0");
    let error = parse(&text).unwrap_err();
    assert!(error.contains("has 2 mistakes:\n- cluster:"), "{error}");
}

#[test]
fn a_missing_file_is_named() {
    let error = NodeConfig::load(Path::new("/nowhere/x.toml")).unwrap_err().to_string();
    assert!(error.starts_with("can't read the configuration /nowhere/x.toml"), "{error}");
}

#[test]
fn addresses() {
    for good in ["127.0.0.1:1", "[::1]:80", "host.example:65535", "0.0.0.0:0"] {
        assert_eq!(good.parse::<Address>().unwrap().as_str(), good);
    }
    for bad in ["", ":", ":80", "host", "host:", "host:x", "[::1:80", "[x]:80", "a b:1", "u@h:1"] {
        assert!(bad.parse::<Address>().is_err(), "{bad}");
    }
    assert_eq!(Address::new("::1", 5).unwrap().as_str(), "[::1]:5");
    assert_eq!(Address::new("h", 5).unwrap().as_str(), "h:5");
}
