"""Run the service: ``python -m services.generate``."""

from services.generate.app import build
from shared.service import run

run("generate", build)
