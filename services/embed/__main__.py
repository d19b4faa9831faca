"""Run the service: ``python -m services.embed``."""

from services.embed.app import build
from shared.service import run

run("embed", build)
