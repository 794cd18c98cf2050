//! What web pages get, and what browsers are told.

use super::*;

/// A node with the hosts of its configuration.
async fn start() -> AdminUrl {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = listener.local_addr().unwrap().to_string().parse().unwrap();
    let text = include_str!("../../../demo/vulpes.example.toml");
    let config = NodeConfig::parse(text, std::path::Path::new("x.toml")).unwrap();
    let node = FakeNode { ready: true, users: None };
    tokio::spawn(serve(listener, Arc::new(node), Visitors::of(&config)));
    url
}

/// What is answered to a request with these lines.
async fn asked(url: &AdminUrl, path: &str, lines: &str) -> String {
    let request = format!("GET {path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n");
    raw(url, &request).await
}

#[tokio::test]
async fn a_node_answers_to_its_own_names() {
    let url = start().await;
    for (path, lines, code) in [
        ("/status", "Host: localhost:9081\r\n", 200),
        ("/status", "Host: 127.0.0.1\r\n", 200),
        ("/status", "Host: evil.example\r\n", 421),
        ("/status", "Host: evil.example:9081\r\nOrigin: http://localhost\r\n", 421),
        ("/status", "Host: localhost\r\nHost: evil.example\r\n", 421),
        ("/status", "Host: \u{fc}\r\n", 421),
        ("http://evil.example/status", "Host: localhost\r\n", 421),
        ("http://localhost/status", "Host: evil.example\r\n", 421),
        ("/nowhere", "Host: evil.example\r\n", 421),
        // A load balancer asks by its own name.
        ("/healthz", "Host: balancer\r\n", 200),
        ("/readyz", "Host: balancer\r\n", 200),
        ("/healthz", "Host: localhost\r\nOrigin: http://evil.example\r\n", 403),
        ("/status", "Host: localhost\r\nOrigin: null\r\n", 403),
    ] {
        let answer = asked(&url, path, lines).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{path} {lines}: {answer}");
        assert_eq!(answer.contains("`hosts` under [listen]"), code == 421, "{answer}");
    }
    // Who names none is not a browser.
    let answer = raw(&url, "GET /status HTTP/1.0\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.0 200 "), "{answer}");
}

#[tokio::test]
async fn every_answer_says_that_it_is_no_page_and_for_nobody_else() {
    let url = start().await;
    for (path, lines) in [
        ("/status", "Host: localhost\r\n"),
        ("/healthz", "Host: localhost\r\n"),
        ("/nowhere", "Host: localhost\r\n"),
        ("/log?from=x", "Host: localhost\r\n"),
        ("/status", "Host: evil.example\r\n"),
        ("/status", "Host: localhost\r\nOrigin: http://evil.example\r\n"),
        ("/status", "Host: localhost\r\nOrigin: http://localhost\r\n"),
    ] {
        let answer = asked(&url, path, lines).await.to_ascii_lowercase();
        for header in [
            "cache-control: no-store\r\n",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
            "cross-origin-resource-policy: same-origin\r\n",
            "referrer-policy: no-referrer\r\n",
            "x-content-type-options: nosniff\r\n",
            "x-frame-options: deny\r\n",
        ] {
            assert!(answer.contains(header), "{header} to {path} {lines}: {answer}");
        }
        assert!(!answer.contains("access-control-") && !answer.contains("strict-transport"));
    }
    let preflight = "OPTIONS /users HTTP/1.1\r\nHost: localhost\r\nOrigin: http://localhost\r\n\
                     Access-Control-Request-Method: POST\r\nConnection: close\r\n\r\n";
    let answer = raw(&url, preflight).await.to_ascii_lowercase();
    assert!(answer.contains(" 405 ") && !answer.contains("access-control-"), "{answer}");
}
