"""A python_function model of MLflow that reads the folder of an exported model: nothing of it is pickled.

`mlflow models serve -m FOLDER --env-manager local` serves it; the input has a column `user`, or a column `items` of
lists of items and, where these have such, `values`.
"""

from __future__ import annotations

from typing import Any

import pandas as pd

from sparkrec.errors import InputError
from sparkrec.exported.model import ExportedModel

_COLUMNS = "expected a column user, or a column items of lists and, beside it, values"


class PythonModel:
    """What MLflow calls."""

    def __init__(self, model: ExportedModel) -> None:
        self.model = model

    def predict(self, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """(items, scores, by) of each row; `params` are `k` and `seen` of `ExportedModel.recommend`."""
        given = set(model_input.columns)
        if given != {"user"} and given not in ({"items"}, {"items", "values"}):
            raise InputError(f"found the columns {', '.join(map(str, model_input.columns))}; {_COLUMNS}.")
        if "user" in given:
            answers = self.model.recommend(model_input["user"].tolist(), **(params or {}))
        else:
            values = model_input["values"] if "values" in given else None
            answers = self.model.recommend(histories=model_input["items"], values=values, **(params or {}))
        rows = [(each.items, each.scores.tolist(), each.by) for each in answers]
        return pd.DataFrame(rows, columns=["items", "scores", "by"], index=model_input.index)


def _load_pyfunc(path: str) -> PythonModel:
    return PythonModel(ExportedModel.load(path))
