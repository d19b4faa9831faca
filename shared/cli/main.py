"""The command ``refdesk``: its commands, and the one place where failures become an exit code."""

import io
import os
import sys
import traceback
from typing import Annotated

import typer
from typer.exceptions import TyperException

from shared import __version__
from shared.cli import (
    ask,
    audit,
    backup,
    corpora,
    demo,
    doctor,
    documents,
    escalations,
    evaluate,
    export,
    ingest,
    jobs,
    keys,
    models,
    policy,
    registry,
    reindex,
    retrieve,
    route,
    router,
    status,
    up,
)
from shared.cli.console import say_error
from shared.cli.failures import CliError
from shared.errors import ApiError, StartupError
from shared.settings import load_settings

INTERRUPTED = 130  # 128 + SIGINT, as shells count it

app = typer.Typer(
    help="refdesk: a reference desk for a knowledge base.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
_SUITE, _USE, _CORPORA, _CARE = "The suite", "Load and ask", "Corpora", "Care"

app.command(rich_help_panel=_SUITE)(up.up)
app.command(rich_help_panel=_SUITE)(status.status)
app.command(rich_help_panel=_SUITE)(demo.demo)
app.command(rich_help_panel=_USE)(ingest.ingest)
app.command(rich_help_panel=_USE)(retrieve.retrieve)
app.command(rich_help_panel=_USE)(ask.ask)
app.command(rich_help_panel=_USE)(route.route)
app.add_typer(corpora.app, name="corpora", rich_help_panel=_CORPORA)
app.add_typer(documents.app, name="documents", rich_help_panel=_CORPORA)
app.command(rich_help_panel=_CORPORA)(export.export)
app.command("import", rich_help_panel=_CORPORA)(export.import_file)
app.command(rich_help_panel=_CORPORA)(backup.backup)
app.command(rich_help_panel=_CORPORA)(backup.restore)
app.command(rich_help_panel=_CORPORA)(reindex.reindex)
app.command(rich_help_panel=_CORPORA)(reindex.rollback)
app.command(rich_help_panel=_CORPORA)(reindex.generations)
app.command(rich_help_panel=_CORPORA)(reindex.migrate)
app.add_typer(jobs.app, name="jobs", rich_help_panel=_CARE)
app.command(rich_help_panel=_CARE)(doctor.doctor)
app.add_typer(escalations.app, name="escalations", rich_help_panel=_CARE)
app.add_typer(audit.app, name="audit", rich_help_panel=_CARE)
app.add_typer(models.app, name="models", rich_help_panel=_CARE)
app.add_typer(policy.app, name="policy", rich_help_panel=_CARE)
app.add_typer(registry.app, name="registry", rich_help_panel=_CARE)
app.add_typer(router.app, name="router", rich_help_panel=_CARE)
app.add_typer(keys.app, name="keys", rich_help_panel=_CARE)
app.command("eval", rich_help_panel=_CARE)(evaluate.evaluate)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"refdesk {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    pass


def run() -> None:
    """Run the command line and exit with its code.

    0: done. 1: it failed, with one line ``error: …`` on stderr. 2: used wrongly. 130: interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        # What a terminal can't show is shown as an escape rather than ending the command.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(_run())


def _run() -> int:
    try:
        code = app(standalone_mode=False)
        if sys.stdout is not None:  # it is, where the shell closed it: >&-
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except TyperException as error:  # wrong usage, with its own exit code
        if error.format_message():  # a command without arguments has shown its help instead
            # Typer's own words for a value that is none of a list begin so.
            say_error(error.format_message().replace("Value error, ", ""))
        return error.exit_code
    except (CliError, StartupError, ApiError) as error:
        say_error(str(error))
        return 1
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has gone; at exit Python would try to flush the rest to them.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        say_error(f"{error.strerror or error}{where}")
        return 1
    except Exception as error:  # a defect of ours: still one line, and a way to see more
        if _debugging():
            traceback.print_exc()
        say_error(f"refdesk failed unexpectedly ({type(error).__name__}: {error})")
        return 1


def _debugging() -> bool:
    try:
        return load_settings().log_level == "debug"
    except StartupError:
        return False


if __name__ == "__main__":
    run()
