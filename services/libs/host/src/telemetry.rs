//! Log lines to the standard error, traces to an OTLP receiver when one is configured.

use std::time::Duration;

use opentelemetry::trace::{TraceContextExt as _, TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Level;
use tracing::level_filters::LevelFilter;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::{HostConfig, LogFormat};
use crate::{ConfigError, HostError};

/// Spans that are pending at the end get this long to be sent; what a slow or silent receiver has not
/// taken by then is lost.
const LAST_SPANS_GRACE: Duration = Duration::from_secs(2);

pub(crate) struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    pub(crate) fn install(program: &'static str, config: &HostConfig) -> Result<Self, HostError> {
        let filter = EnvFilter::try_new(&config.log)
            .map_err(|error| ConfigError::key("host.log", error.to_string()))?;
        let traces = config
            .otlp_endpoint
            .as_deref()
            .map(|endpoint| exporter(program, &config.node_id, endpoint))
            .transpose()?;
        let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        let lines = match config.log_format {
            LogFormat::Text => lines
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .boxed(),
            LogFormat::Json => lines.json().flatten_event(true).boxed(),
        };
        let spans = traces.as_ref().map(|provider| {
            // Spans of calls are DEBUG, and leave whatever the log is told to show. Only ours: the
            // exporter makes calls as well, and would trace itself without end.
            let traced = filter_fn(|metadata| {
                (metadata.is_span() && metadata.target().starts_with("sovereign_host"))
                    || (metadata.is_event() && *metadata.level() <= Level::INFO)
            });
            tracing_opentelemetry::layer()
                .with_tracer(provider.tracer("sovereign"))
                .with_filter(traced.with_max_level_hint(LevelFilter::DEBUG))
        });
        tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .with(spans)
            .try_init()
            .map_err(|source| HostError::Setup {
                operation: "install logging",
                source: source.into(),
            })?;
        std::panic::set_hook(Box::new(|panic| {
            let place = panic.location().map(ToString::to_string);
            let what = panic.payload_as_str().unwrap_or("a panic without text");
            tracing::error!(place, "panic: {what}");
        }));
        Ok(Self { traces })
    }

    /// Sends the spans that are still pending, for at most [`LAST_SPANS_GRACE`].
    pub(crate) fn finish(self) {
        if let Some(provider) = self.traces
            && let Err(error) = provider.shutdown_with_timeout(LAST_SPANS_GRACE)
        {
            tracing::warn!(%error, "send the last traces");
        }
    }
}

fn exporter(
    program: &'static str,
    node: &str,
    endpoint: &str,
) -> Result<SdkTracerProvider, HostError> {
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .build()
        .map_err(|source| HostError::Setup {
            operation: "set up the trace exporter of `host.otlp_endpoint`",
            source: source.into(),
        })?;
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attribute(opentelemetry::KeyValue::new(
            "service.instance.id",
            node.to_owned(),
        ))
        .build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_resource(resource)
        .build())
}

pub(crate) fn traceparent() -> Option<String> {
    let context = tracing::Span::current().context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
    })
}
