use proptest::prelude::*;

use super::*;

fn field(tag: u32, value: &[u8]) -> Field<'_> {
    Field { tag: Tag(tag), value }
}

#[test]
fn golden_bytes() {
    let extensions = Extensions::new(&[field(1, b"ann"), field(300, b"")]).unwrap();
    assert_eq!(extensions.as_bytes(), b"\x01\x03ann\xac\x02\x00");
    assert_eq!(extensions.get(Tag(1)), Some(&b"ann"[..]));
    assert_eq!(extensions.get(Tag(300)), Some(&b""[..]));
    assert_eq!(extensions.get(Tag(2)), None);
}

#[test]
fn an_unknown_field_withholds_the_event_only_where_it_is_critical() {
    let withhold = |tags: &[u32]| {
        let fields: Vec<_> = tags.iter().map(|tag| field(*tag, b"x")).collect();
        Extensions::new(&fields).unwrap().withhold()
    };
    assert!(!withhold(&[]));
    assert!(!withhold(&[1, 9_999]));
    assert!(withhold(&[1, 9_998, 9_999]));
}

#[test]
fn what_passes_a_limit_or_is_not_well_formed_is_refused() {
    let parse = |bytes: &[u8]| Extensions::parse(Bytes::copy_from_slice(bytes)).map(drop);
    assert_eq!(parse(b"\x02\x00\x01\x00"), Err(ExtensionsError::OutOfOrder));
    assert_eq!(parse(b"\x01\x00\x01\x00"), Err(ExtensionsError::OutOfOrder));
    assert_eq!(parse(b"\x00\x00"), Err(ExtensionsError::OutOfOrder));
    for cut in [&b"\x01"[..], b"\x01\x02x", b"\x01\xff\xff\xff\xff\x0f", b"\x80"] {
        assert_eq!(parse(cut), Err(ExtensionsError::CutShort));
    }
    let many: Vec<_> = (1..=limits::EXTENSION_FIELDS as u32).map(|tag| field(tag, b"")).collect();
    assert!(Extensions::new(&many).is_ok());
    let more = [&many[..], &[field(1_000, b"")]].concat();
    assert_eq!(Extensions::new(&more), Err(ExtensionsError::TooMany));
    // A tag of one byte, and a length of three.
    let long = vec![0; limits::EXTENSION_BYTES - 4];
    assert!(Extensions::new(&[field(1, &long)]).is_ok());
    let longer = vec![0; long.len() + 1];
    assert_eq!(Extensions::new(&[field(1, &longer)]), Err(ExtensionsError::TooLong));
}

proptest! {
    #[test]
    fn what_goes_in_comes_out(
        fields in proptest::collection::btree_map(1u32.., proptest::collection::vec(any::<u8>(), 0..40), 0..20),
    ) {
        let fields: Vec<_> = fields.iter().map(|(tag, value)| field(*tag, value)).collect();
        let extensions = Extensions::new(&fields).unwrap();
        prop_assert_eq!(extensions.fields().collect::<Vec<_>>(), fields);
        let again = Extensions::parse(Bytes::copy_from_slice(extensions.as_bytes()));
        prop_assert_eq!(again, Ok(extensions));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
        if let Ok(extensions) = Extensions::parse(bytes.clone().into()) {
            let read: usize = extensions.fields().map(|field| 2 + field.value.len()).sum();
            prop_assert!(read <= bytes.len());
            prop_assert!(!extensions.withhold() || !extensions.is_empty());
        }
    }
}
