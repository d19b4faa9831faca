"""What every store refuses to write, as it would fit nothing else in the corpus."""

import numpy as np

from services.retrieve.stores.base import NewDocument
from services.retrieve.stores.corpus import CorpusInfo


def require_fitting(document: NewDocument, corpus: CorpusInfo) -> None:
    """Raise ValueError where a document's vectors do not fit its chunks or the corpus."""
    wanted = (len(document.chunks), corpus.dimension)
    if document.vectors.shape != wanted:
        raise ValueError(f"{document.id}: vectors {document.vectors.shape}, expected {wanted}")
    if not np.isfinite(document.vectors).all():
        raise ValueError(f"{document.id}: a vector with NaN or infinity")
    sparse = None if document.sparse is None else len(document.sparse)
    expected = len(document.chunks) if corpus.sparse else None
    if sparse != expected:
        raise ValueError(f"{document.id}: sparse vectors {sparse}, expected {expected}")
