use super::*;

fn parsed(text: &str) -> NbdAddress {
    text.parse().unwrap()
}

#[test]
fn the_four_schemes_are_read() {
    assert_eq!(
        parsed("nbd://host/vda"),
        NbdAddress::tcp("host", NBD_PORT, "vda")
    );
    assert_eq!(parsed("nbd://host:7"), NbdAddress::tcp("host", 7, ""));
    assert_eq!(
        parsed("nbds://[::1]:9/"),
        NbdAddress::tcp("::1", 9, "").with_tls()
    );
    assert_eq!(
        parsed("nbd+unix:///vda?socket=/a/b"),
        NbdAddress::unix("/a/b", "vda")
    );
    assert_eq!(
        parsed("nbds+unix:///?socket=/a"),
        NbdAddress::unix("/a", "").with_tls()
    );
    assert_eq!(
        parsed("nbd+unix:///a%20b?socket=/x%3Fy"),
        NbdAddress::unix("/x?y", "a b")
    );
}

#[test]
fn what_is_written_is_read_back() {
    for text in [
        "nbd://host/vda",
        "nbds://host:7/a/b%3Fc",
        "nbd://[fe80::1]/",
        "nbd+unix:///vda?socket=/run/with%20space.sock",
        "nbds+unix:///?socket=/s&tls-hostname=name",
    ] {
        assert_eq!(parsed(text).to_string(), text);
    }
}

#[test]
fn nonsense_is_refused_with_a_hint() {
    for text in [
        "",
        "host/vda",
        "http://host/",
        "nbd://",
        "nbd:///vda",
        "nbd://host:port/",
        "nbd://host:0/",
        "nbd://host:99999/",
        "nbd://[::1/",
        "nbd+unix:///vda",
        "nbd+unix://host/vda?socket=/s",
        "nbd://host/%zz",
        "nbd://host/%ff",
        "nbd://host/a%00b",
        "nbd://host/?socket=/s",
        "nbd://host/?colour=blue",
    ] {
        let error = text.parse::<NbdAddress>().unwrap_err();
        assert_eq!(error.code(), "mount.nbd-address.malformed", "{text}");
        assert!(error.hint_text().is_some());
    }
}
