"""``refdesk eval``: how well the desk finds, on a test collection, over HTTP."""

from pathlib import Path
from typing import Annotated

import typer


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="DIR",
            help="A collection: corpus.jsonl, queries.jsonl and qrels.tsv.",
            show_default=False,
        ),
    ],
    arms: Annotated[
        str,
        typer.Option(
            help="Of bm25, dense, sparse, fused and curated those to run, with commas; "
            "else all but sparse."
        ),
    ] = "",
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="SETTINGS.yaml",
            help="Run these named settings, too: NAME: {FIELD of POST /retrieve: VALUE}.",
        ),
    ] = None,
    baseline: Annotated[
        str, typer.Option(help="Arm to compare with; the best single arm if not given.")
    ] = "",
    worst: Annotated[
        int,
        typer.Option(
            help="Show so many of the queries that lost most, of the last arm and of each setting.",
            min=0,
        ),
    ] = 0,
    url: Annotated[
        str, typer.Option(help="Use this retrieve service instead of starting one.")
    ] = "",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Throw the kept index away and store again.")
    ] = False,
    split: Annotated[str, typer.Option(help="test, dev or train.")] = "test",
    language: Annotated[
        str,
        typer.Option(
            help="ISO 639-1 code of the documents' language, or mul; English if not given."
        ),
    ] = "",
    as_object: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    limit: Annotated[
        int | None, typer.Option(help="Only the first so many queries.", min=1)
    ] = None,
) -> None:
    """Measure nDCG@10, R@100 and RR@10 on a collection in BEIR's layout.

    Each query runs through POST /retrieve by words alone (bm25), by vectors alone (dense), by all
    arms that the corpus has (fused), and by these with the curator (curated), and the differences
    are tested. By words that embed's model has weighed (sparse) it runs if --arms says so. Without
    --url, services are started for it on free ports, and their index is kept for the next time.
    """
    # Here, so that no other command waits for what does the sums.
    from shared.cli.evaluation.command import run

    run(
        folder,
        arms=arms,
        compare=compare,
        baseline=baseline,
        worst=worst,
        url=url,
        fresh=fresh,
        split=split,
        as_object=as_object,
        limit=limit,
        language=language,
    )
