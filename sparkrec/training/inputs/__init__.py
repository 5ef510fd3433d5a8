"""Readers of what models take besides ids, by what a model declares that it sees."""

from sparkrec.models.base.recommender import Sees
from sparkrec.training.inputs.fields import FieldReader
from sparkrec.training.inputs.histories import HistoryReader
from sparkrec.training.inputs.ids import InputReader
from sparkrec.training.inputs.rows import RowReader

READERS: dict[Sees, type[InputReader]] = {
    "ids": InputReader,
    "fields": FieldReader,
    "history": HistoryReader,
    "rows": RowReader,
}
