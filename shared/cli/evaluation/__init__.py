"""The parts of ``refdesk eval``: a kept index, runs, figures, and what differences are worth."""
