use super::*;

fn quotas(limits: Limits) -> Quotas {
    Quotas::new(limits)
}

fn of_address(quota: Quota) -> Quotas {
    quotas(Limits { address: quota, ..Limits::default() })
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn a_host_counts_as_one() {
    for (one, other, same) in [
        ("10.0.0.1", "10.0.0.1", true),
        ("10.0.0.1", "10.0.0.2", false),
        ("10.0.0.1", "::ffff:10.0.0.1", true),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.2", false),
        ("2001:db8::1", "2001:db8::ffff:2", true),
        ("2001:db8::1", "2001:db8:0:1::1", false),
    ] {
        assert_eq!(Net::of(address(one)) == Net::of(address(other)), same, "{one} {other}");
    }
}

#[test]
fn connections_are_given_back() {
    let quotas = of_address(Quota { connections: Some(2), ..Quota::default() });
    let connect = |text| quotas.connects(address(text), Moment(0));
    let first = connect("10.0.0.1").unwrap();
    let second = connect("10.0.0.1").unwrap();
    assert_eq!(connect("10.0.0.1").err(), Some(Refused::Connections));
    assert!(connect("10.0.0.2").is_ok(), "others are not harmed");
    drop(first);
    let third = connect("10.0.0.1").unwrap();
    assert_eq!(connect("10.0.0.1").err(), Some(Refused::Connections));
    drop((second, third));
}

#[test]
fn without_a_limit_nothing_is_counted() {
    let quotas = quotas(Limits::default());
    assert!(quotas.connects(address("10.0.0.1"), Moment(0)).unwrap().is_none());
    assert!(quotas.logs_in("ann", &[], Moment(0)).unwrap().is_none());
    assert!(lock(&quotas.0.addresses).accounts.is_empty());
}

#[test]
fn connects_are_limited_by_time() {
    let quotas = of_address(Quota { connects_per_second: Some(1), ..Quota::default() });
    let connect = |now| quotas.connects(address("::1"), Moment(now)).map(drop);
    assert!((0..CONNECTS_AT_ONCE).all(|_| connect(0).is_ok()));
    assert_eq!(connect(999), Err(Refused::Rate));
    assert_eq!(connect(1000), Ok(()));
}

#[test]
fn addresses_beyond_the_table_count_as_one() {
    let quotas = of_address(Quota { connections: Some(1), ..Quota::default() });
    lock(&quotas.0.addresses).most = 2;
    let connect = |last, now| quotas.connects(IpAddr::from([10, 0, 0, last]), Moment(now));
    let held: Vec<_> = (0..3).map(|last| connect(last, 0).unwrap()).collect();
    assert_eq!(connect(4, 0).err(), Some(Refused::Connections), "it counts with the third");
    assert_eq!(connect(1, 0).err(), Some(Refused::Connections), "it has its own");
    drop(held);
    // Those that are not needed make room.
    let held: Vec<_> = (5..7).map(|last| connect(last, SWEPT).unwrap()).collect();
    assert_eq!(lock(&quotas.0.addresses).accounts.len(), 2);
    drop(held);
}

#[test]
fn what_an_account_remembers_is_not_swept() {
    let quotas = of_address(Quota { connects_per_second: Some(1), ..Quota::default() });
    lock(&quotas.0.addresses).most = 1;
    let connect = |last, now| quotas.connects(IpAddr::from([10, 0, 0, last]), Moment(now));
    while connect(1, SWEPT).is_ok() {}
    connect(2, SWEPT).unwrap();
    assert!(connect(1, SWEPT).is_err(), "coming with another address does not help");
}

#[test]
fn a_user_keeps_its_counts_when_its_roles_change() {
    let quota = |connections| Quota { connections: Some(connections), ..Quota::default() };
    let roles = [("few".to_owned(), quota(1)), ("more".to_owned(), quota(2))].into();
    let quotas = quotas(Limits { roles, ..Limits::default() });
    let come = |role: &str| quotas.logs_in("ann", &[role.to_owned()], Moment(0));
    let one = come("few").unwrap();
    assert_eq!(come("few").err(), Some(Refused::Connections));
    let two = come("more").unwrap();
    assert_eq!(come("more").err(), Some(Refused::Connections));
    assert!(come("none").unwrap().is_none());
    drop((one, two));
    assert_eq!(lock(&quotas.0.users).accounts["ann"].state().connections, 0);
}

#[test]
fn anonymous_clients_share_a_budget_of_the_log() {
    let quotas = quotas(Limits { anonymous_log: Some(1000), ..Limits::default() });
    let all = 1000 * LOG_AT_ONCE;
    let come = |bytes: u64, now| quotas.comes_in(None, bytes as usize, Moment(now)).map(drop);
    assert_eq!(come(all - 2 * SESSION_OVERHEAD, 0), Ok(()));
    assert_eq!(come(0, 0), Ok(()));
    assert_eq!(come(0, 639), Err(Refused::Rate));
    assert_eq!(come(0, 640), Ok(()));
}

#[test]
fn subscriptions_and_input_are_counted() {
    let quota = Quota {
        subscriptions: Some(1),
        publishes_per_second: Some(10),
        bytes_per_second: Some(100),
        ..Quota::default()
    };
    let member = of_address(quota).connects(address("::1"), Moment(0)).unwrap().unwrap();
    let account = member.account();
    let one = account.subscribe();
    assert!(one.is_some() && account.subscribe().is_none());
    drop(one);
    assert!(account.subscribe().is_some());
    assert_eq!((account.messages(Moment(0)), account.ready_at(Moment(0))), (Some(10), None));
    account.spend(10, 1, Moment(0));
    assert_eq!(account.ready_at(Moment(0)), Some(Moment(100)));
    account.spend(0, 149, Moment(0));
    assert_eq!(account.ready_at(Moment(0)), Some(Moment(510)), "the later of both");
}
