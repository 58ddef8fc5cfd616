"""OpenTelemetry: where spans go, and how their context travels between processes.

::

    POST /v1/rollout ──▶ batch ──▶ compute      (gateway ─ Valkey ▶ rollout worker)
    POST /v1/jobs ─────▶ job: fetch, compute, publish       (gateway ─ row ▶ worker)

Nothing is done until ``configure`` is told of a collector. Between processes, and from
one module to the next, a context is a W3C ``traceparent``.
"""

import atexit
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, trace
from opentelemetry.trace import Link, SpanKind
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from services.settings import Settings

_HEADER = "traceparent"
_PROPAGATOR = TraceContextTextMapPropagator()
_EXPORT_S = 5.0
_END_S = 2.0
_tracer: trace.Tracer | None = None


def configure(settings: Settings, service: str) -> None:
    """Send the spans of this process to the collector of the settings, if there is one.

    To be called once, after the last fork: a thread of its own sends them.

    Args:
        settings: Where the collector is, and the share of traces that it gets.
        service: ``service.name`` of the spans.
    """
    global _tracer
    if not settings.traces_url:
        return
    # Imported here: most deployments need none of it.
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import SpanLimits, TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased

    share = TraceIdRatioBased(settings.traces_share)
    provider = TracerProvider(
        resource=Resource.create({"service.name": service}),
        # Where a caller's trace is kept, this deployment keeps its own share of those.
        sampler=ParentBased(share, remote_parent_sampled=share),
        span_limits=SpanLimits(max_links=settings.max_batch_rows),
        shutdown_on_exit=False,
    )
    endpoint = settings.traces_url.rstrip("/") + "/v1/traces"
    exporter = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_S)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    # Not the process's own: FastAPI would add four spans to each request.
    _tracer = provider.get_tracer("spnode")
    # The interpreter starts no thread any more when it ends.
    ends, last = threading.Event(), provider.shutdown
    thread = threading.Thread(
        target=lambda: (ends.wait(), last()), name="traces-end", daemon=True
    )
    thread.start()
    atexit.register(_finish, ends, thread)


def _finish(ends: threading.Event, thread: threading.Thread) -> None:
    """Send what is left, unless that takes longer than a process has to end."""
    ends.set()
    thread.join(_END_S)


def are_on() -> bool:
    """Whether the spans of this process go anywhere."""
    return _tracer is not None


def traceparent() -> str | None:
    """The context of the current span, as the next process takes it; None: no span."""
    if _tracer is None:
        return None
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get(_HEADER)


def trace_id() -> str | None:
    """The id of the current trace in hexadecimal digits; None: no span."""
    if _tracer is None:
        return None
    found = trace.get_current_span().get_span_context()
    return trace.format_trace_id(found.trace_id) if found.is_valid else None


@contextmanager
def span(
    name: str,
    attributes: Mapping[str, str | int] | None = None,
    *,
    parent: str | None = None,
    kind: SpanKind = SpanKind.INTERNAL,
    links: Iterable[str] = (),
) -> Iterator[trace.Span]:
    """Whatever the block does belongs to a span.

    An exception is named by its class alone: what it says may hold what was sent.

    Args:
        name: Of few different ones.
        attributes: What else is known when it begins.
        parent: ``traceparent`` of what it is a part of, of nothing where it is not
            readable; the current span by default.
        kind: What OpenTelemetry says of how it is called.
        links: ``traceparent`` of what it is done for besides.
    """
    if _tracer is None:
        yield trace.INVALID_SPAN
        return
    with _tracer.start_as_current_span(
        name,
        context=None if parent is None else _context(parent),
        kind=kind,
        links=[Link(_span_context(each)) for each in links],
        attributes=attributes,
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        try:
            yield made
        except Exception as error:
            made.set_attribute("error.type", type(error).__name__)
            raise


@contextmanager
def shared_span(
    name: str,
    parents: Iterable[str | None],
    attributes: Mapping[str, str | int] | None = None,
) -> Iterator[str | None]:
    """A span of what is done for several: a part of one's trace, linked to the others.

    Args:
        name: Of few different ones.
        parents: ``traceparent`` of each; what no collector gets counts for nothing.
        attributes: What else is known when it begins.

    Yields:
        Its ``traceparent``, or None where none counts.
    """
    sampled = [each for each in dict.fromkeys(parents) if each and _is_sampled(each)]
    if not sampled:
        yield None
        return
    with span(name, attributes, parent=sampled[0], links=sampled[1:]):
        yield traceparent()


def _is_sampled(parent: str) -> bool:
    return _tracer is not None and _span_context(parent).trace_flags.sampled


def _context(parent: str) -> context.Context:
    return _PROPAGATOR.extract({_HEADER: parent}, context.Context())


def _span_context(parent: str) -> trace.SpanContext:
    return trace.get_current_span(_context(parent)).get_span_context()
