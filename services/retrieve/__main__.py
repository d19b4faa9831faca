"""`python -m services.retrieve`: run the desk until it is told to stop."""

from services.retrieve.app import build
from shared.service import run

if __name__ == "__main__":
    run("retrieve", build)
