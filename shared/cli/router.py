"""``refdesk router``: learn a router from recorded outcomes, and measure what it is worth."""

from pathlib import Path
from typing import Annotated

import typer

from shared.cli.module import run_module

app = typer.Typer(help="Learn a router from recorded outcomes.", no_args_is_help=True)

_OUTCOMES = "JSON lines: text, weak_correct, strong_correct."
_VECTORS = "Keep the questions' vectors in this file (.npz), so that each is made once."


@app.command()
def train(
    outcomes: Annotated[Path, typer.Argument(metavar="FILE", help=_OUTCOMES)],
    out: Annotated[Path, typer.Option(metavar="ROUTER.json", help="Where the router goes.")],
    share: Annotated[
        float,
        typer.Option(
            min=0.01, max=0.99, help="Of questions like these, how many go to the strong writer."
        ),
    ] = 0.5,
    unsure: Annotated[
        float, typer.Option(min=0.0, max=0.99, help="How many of them it leaves to the rules.")
    ] = 0.1,
    vectors: Annotated[Path | None, typer.Option(metavar="FILE", help=_VECTORS)] = None,
) -> int:
    """Learn when a question needs the strong writer. The embed service must run."""
    options = [f"--out={out}", f"--share={share}", f"--unsure={unsure}"]
    return _run("train", outcomes, options, vectors)


@app.command()
def replay(
    outcomes: Annotated[Path, typer.Argument(metavar="FILE", help=_OUTCOMES)],
    router: Annotated[
        Path | None,
        typer.Option(metavar="ROUTER.json", help="Measure this one instead of training in folds."),
    ] = None,
    folds: Annotated[int, typer.Option(min=2, max=100, help="Parts of the questions.")] = 5,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and of the random router.")] = 0,
    vectors: Annotated[Path | None, typer.Option(metavar="FILE", help=_VECTORS)] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> int:
    """Measure a learned router beside chance, length, rules and oracle. The embed service must run.

    Each question is judged by a router that was trained without it and what is much like it.
    """
    options = [f"--folds={folds}", f"--seed={seed}"]
    options += [f"--router={router}"] if router else []
    return _run("replay", outcomes, options + ["--json"] * as_json, vectors)


def _run(command: str, outcomes: Path, options: list[str], vectors: Path | None) -> int:
    kept = [f"--vectors={vectors}"] if vectors else []
    # After --, a file whose name begins with a dash is still a file.
    arguments = [command, *options, *kept, "--", str(outcomes)]
    return run_module("services.generate.routing.learned", *arguments)
