"""What stands in the paths of routes, with its limits."""

from typing import Annotated

from fastapi import Path

CorpusName = Annotated[str, Path(max_length=256)]
DocumentId = Annotated[str, Path(max_length=512)]
