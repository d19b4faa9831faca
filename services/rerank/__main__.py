"""Run the service: ``python -m services.rerank``."""

from services.rerank.app import build
from shared.service import run

run("rerank", build)
