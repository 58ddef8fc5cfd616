"""A collector of OpenTelemetry's spans: OTLP over HTTP, kept in memory."""

import threading
from collections.abc import Mapping
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass(frozen=True)
class Seen:
    """A span as it came."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    links: tuple[str, ...]
    """Ids of the spans."""
    attributes: Mapping[str, Any]
    is_error: bool
    seconds: float


class Collector:
    """Takes spans on a port of its own until it is closed."""

    def __init__(self):
        self.spans: list[Seen] = []
        spans = self.spans

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                assert self.path == "/v1/traces"
                body = self.rfile.read(int(self.headers["content-length"]))
                spans.extend(_spans(ExportTraceServiceRequest.FromString(body)))
                answer = ExportTraceServiceResponse().SerializeToString()
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def of(self, trace: str) -> dict[str, list[Seen]]:
        """The spans of a trace by their names."""
        found: dict[str, list[Seen]] = {}
        for each in self.spans:
            if each.trace == trace:
                found.setdefault(each.name, []).append(each)
        return found

    def close(self):
        self._server.shutdown()
        self._server.server_close()


def _spans(request):
    for resource in request.resource_spans:
        of = _attributes(resource.resource.attributes)
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    of["service.name"],
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple(each.span_id.hex() for each in span.links),
                    _attributes(span.attributes),
                    span.status.code == span.status.STATUS_CODE_ERROR,
                    (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9,
                )


def _attributes(pairs):
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value")) for each in pairs
    }
