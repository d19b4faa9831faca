"""What every refdesk service stands on: settings, errors, the app factory, the HTTP client."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("refdesk")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0.0.0"
