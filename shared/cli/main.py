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
    backup,
    corpora,
    demo,
    doctor,
    documents,
    evaluate,
    export,
    ingest,
    jobs,
    keys,
    models,
    reindex,
    retrieve,
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
app.command()(up.up)
app.command()(ingest.ingest)
app.command()(retrieve.retrieve)
app.command()(ask.ask)
app.command()(status.status)
app.add_typer(corpora.app, name="corpora")
app.add_typer(documents.app, name="documents")
app.command()(export.export)
app.command("import")(export.import_file)
app.command()(backup.backup)
app.command()(backup.restore)
app.command()(reindex.reindex)
app.command()(reindex.rollback)
app.command()(reindex.generations)
app.command()(reindex.migrate)
app.command()(doctor.doctor)
app.add_typer(jobs.app, name="jobs")
app.add_typer(models.app, name="models")
app.add_typer(keys.app, name="keys")
app.command("eval")(evaluate.evaluate)
app.command()(demo.demo)


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
            say_error(error.format_message())
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
