"""Calibration: from a model's own score to a relevance in 0..1 that means the same for every query.

The constants are fitted on judged questions and live with the model: as `calibration.json` in its
folder, else, for the models that come with refdesk, as a file in this package. A file belongs to
one backend and to one set of weights, whatever the precision they are served in.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.encoder.weights import ModelError, read_json
from shared.errors import StartupError
from shared.settings import RerankBackend

CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True)
class Calibration:
    """relevance = 1 / (1 + exp(-(slope * raw + intercept))), with a slope above 0.

    how: in a few words, what it was fitted on and what 0.5 means; shown at /info.
    """

    slope: float
    intercept: float
    how: str

    def apply(self, raw: NDArray[np.floating]) -> NDArray[np.float64]:
        """The relevance, 0..1, of each raw score, in the same order and never out of step."""
        return sigmoid(self.slope * np.asarray(raw, np.float64) + self.intercept)


def sigmoid(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """1 / (1 + exp(-x)) of each, without overflow, float64."""
    half: NDArray[np.float64] = 0.5 * np.asarray(logits, np.float64)
    return 0.5 * (1.0 + np.tanh(half))


class CalibrationFile(BaseModel):
    """A calibration as it is kept.

    revision: of the weights, as the model's own revision begins. fitted_on: the collections and
    splits. date: of the fit. figures: what was measured at the threshold 0.5, by collection.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    backend: RerankBackend
    revision: str = Field(min_length=1)
    slope: float = Field(gt=0)
    intercept: float
    how: str = Field(min_length=1)
    fitted_on: list[str]
    date: str
    figures: dict[str, dict[str, float]]

    @property
    def calibration(self) -> Calibration:
        """What is needed to apply it."""
        return Calibration(self.slope, self.intercept, self.how)


def read_calibration(folder: Path, backend: RerankBackend, revision: str) -> Calibration | None:
    """The calibration of the model in `folder` as `backend` serves it; None where there is none.

    revision: the model's own, of which the part before the first "-" tells the weights. The file in
    the folder goes before the one that comes with refdesk; made for another backend, it is passed
    over. Raises StartupError where it is damaged or was made for other weights.
    """
    path = folder / CALIBRATION_FILE
    if path.exists():
        found = _read(path)
        if found.backend == backend:
            if _weights(found.revision) != _weights(revision):
                raise StartupError(
                    f"{path} was fitted to the weights {_weights(found.revision)}, and these are "
                    f"{_weights(revision)}: fit it again or remove it"
                )
            return found.calibration
    return next(
        (
            shipped.calibration
            for shipped in _shipped()
            if shipped.backend == backend and _weights(shipped.revision) == _weights(revision)
        ),
        None,
    )


@cache
def _shipped() -> list[CalibrationFile]:
    folder = resources.files("services.rerank.models") / "calibrations"
    return [
        CalibrationFile.model_validate_json(file.read_bytes())
        for file in folder.iterdir()
        if file.name.endswith(".json")
    ]


def _read(path: Path) -> CalibrationFile:
    try:
        return CalibrationFile.model_validate(read_json(path))
    except ModelError:
        raise StartupError(f"{path} is damaged: fit it again or remove it") from None
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise StartupError(
            f"{path} is not a calibration ({where}: {fault['msg']}): fit it again or remove it"
        ) from None


def _weights(revision: str) -> str:
    return revision.partition("-")[0]
