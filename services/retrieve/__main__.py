"""`python -m services.retrieve`: run the desk until it is told to stop."""

import sys

from services.retrieve.app import build
from shared.service import run

# A thread that waits for the interpreter gets it after so many seconds, instead of five times as
# many: a search waits several times while documents are cut and stored beside it.
_SWITCH_S = 0.001

if __name__ == "__main__":
    sys.setswitchinterval(_SWITCH_S)
    run("retrieve", build)
