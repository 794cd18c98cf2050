//! Bench callees: each registers one procedure and echoes its arguments.
//!
//! Invariant: every invocation is answered once, in order of arrival.
//!
//! Deliberately absent: counting, which the callers do.

use std::fmt::Write as _;

use anyhow::bail;
use bytes::BytesMut;
use futures::SinkExt;
use serde_json::json;
use tokio::sync::watch;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use super::load::{Finished, Plan};
use super::wamp::{close, head, open, procedure, receive, receive_answer, receive_now, Socket};

pub(super) struct Callee {
    socket: Socket,
    /// Size of its output buffer, in bytes.
    buffer: usize,
}

impl Callee {
    /// Registers the procedure of this number.
    pub(super) async fn connect(plan: &Plan, target: &str, number: usize) -> anyhow::Result<Self> {
        let mut socket = open(plan, target).await?;
        let register = json!([64, 1, {}, procedure(plan, number)]);
        socket.send(Message::text(register.to_string())).await?;
        receive_answer(&mut socket, 65, "registration").await?;
        Ok(Self { socket, buffer: plan.shape.buffer })
    }

    /// Answers until all callers are done; returns what went wrong before that, if anything.
    pub(super) async fn run(
        mut self,
        mut finished: watch::Receiver<Finished>,
        name: String,
    ) -> Option<String> {
        let done = async move {
            // An error means that the run was canceled, which ends the callee as well.
            let _ = finished.wait_for(Option::is_some).await;
        };
        let outcome = tokio::select! {
            outcome = self.answer() => outcome,
            () = done => close(&mut self.socket).await,
        };
        outcome.err().map(|error| format!("{name}: {error:#}"))
    }

    async fn answer(&mut self) -> anyhow::Result<()> {
        let mut buffer = BytesMut::with_capacity(self.buffer);
        loop {
            let mut next = Some(receive(&mut self.socket).await?);
            while let Some(text) = next.take() {
                let Some((request, arguments)) = invocation(&text) else {
                    bail!("the node sent to a callee: {text:.200}");
                };
                write!(buffer, "[70,{request},{{}},{arguments}")?;
                let text = Utf8Bytes::try_from(buffer.split().freeze())?;
                self.socket.feed(Message::Text(text)).await?;
                next = receive_now(&mut self.socket)?;
            }
            self.socket.flush().await?;
        }
    }
}

/// An invocation's request, and everything from its arguments on. Our own arguments have no brackets in them.
fn invocation(text: &str) -> Option<(u64, &str)> {
    let (code, request) = head(text)?;
    let arguments = text.rfind('[').filter(|at| *at > 0)?;
    (code == 68).then(|| (request, &text[arguments..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invocations_are_read() {
        let text = r#"[68,7,9,{"procedure":"p"},["abc"]]"#;
        assert_eq!(invocation(text), Some((7, r#"["abc"]]"#)));
        for other in ["[68,7,9,{}]", r#"[36,7,9,{},["abc"]]"#, "[6,{},\"wamp.close\"]", ""] {
            assert_eq!(invocation(other), None, "{other}");
        }
    }
}
