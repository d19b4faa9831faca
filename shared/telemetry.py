"""Structured logs and Prometheus metrics. Neither ever carries a document's or a query's text."""

import logging
import sys
from typing import Any

import structlog
from prometheus_client import Counter, Histogram

from shared.context import current
from shared.settings import Settings

HTTP_REQUESTS = Counter(
    "refdesk_http_requests", "Requests answered", ["service", "method", "route", "status"]
)
HTTP_SECONDS = Histogram(
    "refdesk_http_request_seconds",
    "Time from a request's headers to the end of its answer",
    ["service", "route"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60),
)


def get_logger(name: str) -> Any:
    """The logger of a module: ``log.info("event_name", field=value)``."""
    return structlog.get_logger(name)


def _add_request_id(_: Any, __: str, event: structlog.typing.EventDict) -> Any:
    request_id = current().request_id
    if request_id != "-":
        event.setdefault("request_id", request_id)
    return event


def configure_logging(service: str, settings: Settings) -> None:
    """Send this process's logs, and those of its libraries, to stderr as one line each."""
    level = settings.log_level.upper()
    before: list[structlog.typing.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_request_id,
    ]
    render: list[structlog.typing.Processor]
    if settings.log_format == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        # Its default shows the local variables of each frame: keys and the texts of documents.
        plain = structlog.dev.plain_traceback
        render = [structlog.dev.ConsoleRenderer(sys.stderr.isatty(), exception_formatter=plain)]

    def add_service(_: Any, __: str, event: structlog.typing.EventDict) -> Any:
        event["service"] = service
        return event

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                add_service,
                *render,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    # Their lines on starting, stopping and each request say less than ours.
    for name in ("uvicorn", "mcp"):
        logging.getLogger(name).setLevel("WARNING")
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
