//! Calling procedures.
//!
//! Invariant: a call ends with its result or its error, or with the session.
//!
//! Deliberately absent: registering procedures.

use super::*;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The callee, or the node on its behalf, answered with an error; the session continues.
    #[error("the call failed: {uri}{}", colon(&said(.arguments)))]
    Failed { uri: String, arguments: Arguments },
    #[error(transparent)]
    Session(#[from] WampError),
}

/// An error's arguments, in one line.
fn said(arguments: &Arguments) -> String {
    match (arguments.args.as_slice(), arguments.kwargs.is_empty()) {
        ([], true) => String::new(),
        ([Value::String(text)], true) => text.clone(),
        ([only], true) => only.to_string(),
        (several, true) => Value::from(several).to_string(),
        (args, false) => json!({"args": args, "kwargs": arguments.kwargs}).to_string(),
    }
}

impl WampClient {
    /// Calls a procedure, and waits for its result; parts of the result are passed on as they arrive. Without a limit it waits
    /// as long as the callee takes. With a limit, the node's timeout comes first.
    ///
    /// # Errors
    /// [`CallError::Failed`] if the call was answered with an error; any other one leaves the outcome unknown.
    pub async fn call(
        &mut self,
        procedure: &str,
        arguments: &Arguments,
        limit: Option<Duration>,
        mut show: Option<&mut dyn FnMut(Arguments) -> std::io::Result<()>>,
    ) -> Result<Arguments, CallError> {
        let request = self.next_request();
        let mut options = Map::new();
        if let Some(limit) = limit {
            let milliseconds = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
            options.insert("timeout".into(), milliseconds.into());
        }
        if show.is_some() {
            options.insert("receive_progress".into(), true.into());
        }
        let mut message: Vec<Value> = vec![
            code::CALL.into(),
            request.into(),
            options.into(),
            procedure.into(),
            arguments.args.clone().into(),
        ];
        if !arguments.kwargs.is_empty() {
            message.push(arguments.kwargs.clone().into());
        }
        let answered = async {
            self.send(&message.into()).await?;
            loop {
                let answer = self.receive().await?;
                match (code_of(&answer), answer.as_slice()) {
                    (code::RESULT, [_, id, details, rest @ ..]) if *id == request => {
                        let arguments = carried(rest);
                        if details.get("progress") != Some(&Value::Bool(true)) {
                            return Ok(arguments);
                        }
                        if let Some(show) = &mut show {
                            let shown = show(arguments);
                            shown.map_err(|error| WampError::Closed(error.to_string()))?;
                        }
                    }
                    (code::ERROR, [_, _, id, _, uri, rest @ ..]) if *id == request => {
                        let (uri, arguments) = (text(Some(uri)), carried(rest));
                        return Err(CallError::Failed { uri, arguments });
                    }
                    // Only this call is open here: other messages are checked and dropped.
                    _ => drop(incoming(&answer)?),
                }
            }
        };
        match limit {
            None => answered.await,
            Some(limit) => match tokio::time::timeout(limit + ANSWER_TIMEOUT, answered).await {
                Ok(outcome) => outcome,
                Err(_) => Err(WampError::Timeout.into()),
            },
        }
    }
}

/// The arguments at the end of a message.
fn carried(rest: &[Value]) -> Arguments {
    Arguments {
        args: rest.first().and_then(Value::as_array).cloned().unwrap_or_default(),
        kwargs: rest.get(1).and_then(Value::as_object).cloned().unwrap_or_default(),
    }
}
