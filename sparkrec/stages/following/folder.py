"""A folder that is followed: each file is taken once, when it is first seen."""

from __future__ import annotations

import logging
from typing import Any

from pyspark.sql import DataFrame, Row
from pyspark.sql import functions as F

from sparkrec import tables
from sparkrec.config import IngestSettings
from sparkrec.spark.platform.digests import digest_sums, row_digest
from sparkrec.spark.platform.lake import Lake
from sparkrec.spark.platform.sources import listed_files, read_log
from sparkrec.stages.batches import Batch
from sparkrec.stages.following.steps import COMPARED, NEW_FILES, Covers, Superseded, gap, write_step

log = logging.getLogger(__name__)


class Folder:
    """Files below a path, or of a glob, as the source of a table of interactions.

    Files that are gone from it stay taken, as a landing zone may be emptied. A file with the rows of another one, under
    another name, is left out.
    """

    def __init__(self, settings: IngestSettings, lake: Lake) -> None:
        self._settings, self._lake, self._source = settings, lake, settings.source
        self._table = tables.of(tables.FILES, settings.table)

    def next_step(self, done: Row | None) -> Covers | None:
        there, taken = self._there(), self._taken()
        changed = sorted(file for file, row in there.items() if file in taken and not _equal(row, taken[file]))
        if changed:
            gap(self._settings, f"{len(changed):,} files that were taken are others now, such as {changed[0]}")
            return Covers(COMPARED)
        return Covers(NEW_FILES) if there.keys() - taken.keys() or done is None else None

    def carry_out(self, step: Row, done: Row | None) -> Batch:
        there, taken, number = self._there(), self._taken(), step["number"]
        if step["how"] == COMPARED:
            batch = write_step(self._settings, self._lake, number, self._rows(there), None, whole=True)
            changed = {file: row for file, row in there.items() if file not in taken or not _equal(row, taken[file])}
            self._note(number, changed, {}, {})
            return batch
        if not any(row["number"] == number for row in taken.values()):
            new = {file: there[file] for file in sorted(there.keys() - taken.keys())}
            digests = self._digests(new)
            known = {row["digest"]: file for file, row in taken.items() if row["digest"]}
            same = {file: known.setdefault(digest, file) for file, digest in digests.items()}
            self._note(number, new, digests, {file: other for file, other in same.items() if other != file})
        # As they were noted, by this run or by one that was killed, or is under way.
        noted = {file: row for file, row in self._taken().items() if row["number"] == number}
        if lost := sorted(noted.keys() - there.keys()):
            gap(self._settings, f"{len(lost):,} files were gone before they were taken, such as {lost[0]}")
            raise Superseded(Covers(COMPARED))
        own = {file: there[file] for file, row in noted.items() if not row["same_as"]}
        for file in noted.keys() - own.keys():
            log.warning("%s is left out: it has the rows of %s", file, noted[file]["same_as"])
        return write_step(self._settings, self._lake, number, self._rows(own), None, whole=False)

    def _there(self) -> dict[str, Row]:
        """Files by their URI: where to read them from, their size and when they were written."""
        return {row["file"]: row for row in listed_files(self._lake.spark, self._source)}

    def _taken(self) -> dict[str, Row]:
        """Files by their URI, as they were when they were last taken."""
        if not self._lake.has_table(self._table.name):
            return {}
        rows = self._lake.table(self._table.name).where(F.col("name") == self._source.label).orderBy("number").collect()
        return {row["path"]: row for row in rows}

    def _rows(self, files: dict[str, Row]) -> DataFrame:
        """The rows of files."""
        if not files:
            return read_log(self._lake.spark, self._source).where("false")
        return read_log(self._lake.spark, self._source, [row["path"] for _, row in sorted(files.items())])

    def _digests(self, files: dict[str, Row]) -> dict[str, str]:
        """What the rows of files are known by, whatever their order, of those that have any."""
        if not files:
            return {}
        rows = self._rows(files)
        of_rows = rows.select(F.col("_metadata.file_path").alias("file"), row_digest(rows).alias("digest"))
        found = of_rows.groupBy("file").agg(F.count("*"), *digest_sums()).collect()
        return {row[0]: "/".join(map(str, row[1:])) for row in found}

    def _note(self, number: int, files: dict[str, Row], digests: dict[str, str], same_as: dict[str, str]) -> None:
        rows: list[dict[str, Any]] = [
            {
                "name": self._source.label,
                "number": number,
                "path": file,
                "size": row["size"],
                "modified": row["modified"].astimezone(),
                "digest": digests.get(file),
                "same_as": same_as.get(file),
            }
            for file, row in files.items()
        ]
        self._lake.add_rows(self._table, rows, f"files:{self._source.label}:{number}")


def _equal(one: Row, other: Row) -> bool:
    return bool(one["size"] == other["size"] and one["modified"] == other["modified"])
