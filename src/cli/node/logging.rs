//! What a node logs: to standard error, filtered by the configuration or the environment, with a limit on repeated
//! lines.
//!
//! Invariant: a kind of line (one statement in the code that logs at INFO or above) is written [`BURST`] times in a row, and
//! then once every [`EVERY`]; the next line says how many were omitted. So a client or a peer that repeats itself does not fill
//! the disk.
//!
//! Deliberately absent: files and their rotation. A service manager stores a process's output.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use tokio::time::Instant;
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{reload, EnvFilter, Registry};

/// Lines of a kind that are written in a row.
const BURST: u32 = 10;

/// How often a line of a kind is written after the burst.
const EVERY: Duration = Duration::from_secs(10);

/// The default filter.
const DEFAULT: &str = "info";

/// Two libraries that log every failed call and heartbeat, but not the peer. We log these failures ourselves; a filter can turn
/// the libraries' lines on again.
const LIBRARIES: &str = "tarpc=off,openraft=off";

/// The environment variable that takes precedence over the configuration.
const VARIABLE: &str = "VULPES_LOG";

/// The log of this process.
pub(super) struct Logging {
    filter: reload::Handle<EnvFilter, Registry>,
}

/// A filter and its origin.
struct Chosen {
    filter: EnvFilter,
    told: String,
}

impl Logging {
    /// Starts logging.
    pub(super) fn start(configured: Option<&str>) -> anyhow::Result<Self> {
        let (filter, handle) = reload::Layer::new(choose(configured)?.filter);
        let colors = io::stderr().is_terminal();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(io::stderr)
            .with_ansi(colors)
            .log_internal_errors(false)
            .map_event_format(|format: Format| Limited {
                format: format.with_ansi(colors),
                kinds: Mutex::default(),
            });
        tracing_subscriber::registry().with(filter).with(lines).init();
        Ok(Self { filter: handle })
    }

    /// Applies the configured filter, unless the environment overrides it; returns the one in effect.
    pub(super) fn change(&self, configured: Option<&str>) -> anyhow::Result<String> {
        let Chosen { filter, told } = choose(configured)?;
        self.filter.reload(filter)?;
        Ok(told)
    }
}

fn choose(configured: Option<&str>) -> anyhow::Result<Chosen> {
    let (text, from) = match (std::env::var(VARIABLE), configured) {
        (Ok(text), _) => {
            (text, format!(" (the variable {VARIABLE} takes precedence over the configuration)"))
        }
        (Err(_), Some(text)) => (text.to_owned(), String::new()),
        (Err(_), None) => (DEFAULT.to_owned(), String::new()),
    };
    let filter = EnvFilter::try_new(format!("{LIBRARIES},{text}"))
        .with_context(|| format!("{VARIABLE}={text:?} is not a log filter; try info or debug"))?;
    Ok(Chosen { filter, told: format!("{text}{from}") })
}

/// Writes lines as [`Format`] does, with the client that they are about, but limits each kind.
struct Limited {
    format: Format,
    kinds: Mutex<HashMap<Identifier, Kind>>,
}

/// How often a kind of line has been written.
struct Kind {
    /// How many more may be written now.
    left: u32,
    /// Since when one more may be written.
    since: Instant,
    omitted: u64,
}

impl Kind {
    fn new(now: Instant) -> Self {
        Self { left: BURST, since: now, omitted: 0 }
    }

    /// Decides whether to write a line; if so, returns how many before it were omitted.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let earned = now.duration_since(self.since).as_secs() / EVERY.as_secs();
        if earned > 0 {
            self.left = self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST)).min(BURST);
            self.since = now;
        }
        if self.left == 0 {
            self.omitted += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.omitted))
    }
}

impl Limited {
    /// Writes a line, with the client that it is about, if it is about one, at its end.
    fn write<S, N>(
        &self,
        context: &FmtContext<'_, S, N>,
        writer: &mut Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result
    where
        S: Subscriber + for<'a> LookupSpan<'a>,
        N: for<'a> FormatFields<'a> + 'static,
    {
        let Some(client) = crate::server::client() else {
            return self.format.format_event(context, writer.by_ref(), event);
        };
        let mut line = String::new();
        self.format.format_event(context, Writer::new(&mut line), event)?;
        writeln!(writer, "{} {client}", line.trim_end())
    }
}

impl<S, N> FormatEvent<S, N> for Limited
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        // A filter that enables more than INFO means to see everything.
        if *event.metadata().level() > Level::INFO {
            return self.write(context, &mut writer, event);
        }
        let now = Instant::now();
        let omitted = {
            let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = kinds.entry(event.metadata().callsite()).or_insert_with(|| Kind::new(now));
            kind.take(now)
        };
        let Some(omitted) = omitted else { return Ok(()) };
        self.write(context, &mut writer, event)?;
        if omitted > 0 {
            writeln!(
                writer,
                "    and {omitted} lines of this kind before it, which were left out"
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Arc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_line_is_limited_and_what_was_left_out_is_told() {
        let mut kind = Kind::new(Instant::now());
        for _ in 0..BURST {
            assert_eq!(kind.take(Instant::now()), Some(0));
        }
        for _ in 0..1_000 {
            assert_eq!(kind.take(Instant::now()), None);
        }
        tokio::time::advance(EVERY).await;
        assert_eq!(kind.take(Instant::now()), Some(1_000));
        assert_eq!(kind.take(Instant::now()), None);
        tokio::time::advance(100 * EVERY).await;
        assert_eq!(kind.take(Instant::now()), Some(1));
        for _ in 1..BURST {
            assert_eq!(kind.take(Instant::now()), Some(0));
        }
        assert_eq!(kind.take(Instant::now()), None);
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn each_kind_has_its_own_limit() {
        let written = Written::default();
        let to = written.clone();
        let lines = tracing_subscriber::fmt::layer()
            .with_writer(move || to.clone())
            .map_event_format(|format: Format| Limited { format, kinds: Mutex::default() });
        let _set = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines));
        let complain = || tracing::warn!("again");
        (0..500).for_each(|_| complain());
        tracing::error!("once");
        (0..500).for_each(|_| tracing::debug!("asked for"));
        tokio::time::advance(EVERY).await;
        complain();
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        assert_eq!(text.matches("again").count(), BURST as usize + 1);
        assert_eq!(text.matches("once").count(), 1);
        assert_eq!(text.matches("asked for").count(), 500);
        assert!(
            text.ends_with("and 490 lines of this kind before it, which were left out\n"),
            "{text}"
        );
    }

    #[test]
    fn what_the_configuration_says_is_a_filter() {
        for text in ["debug", "info,vulpes=trace", "off", "tarpc=debug"] {
            assert!(EnvFilter::try_new(format!("{LIBRARIES},{text}")).is_ok(), "{text}");
        }
    }
}
