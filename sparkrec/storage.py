"""Small files of the lake (manifests, reports): written whole or not at all, on any filesystem that pyarrow knows."""

from __future__ import annotations

import io
import json
import uuid
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from sparkrec import object_stores
from sparkrec.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])
_DBFS = "dbfs:/"


def resolve(path: str) -> tuple[pafs.FileSystem, str]:
    """The filesystem of a path or URI, and the name by which it knows the file."""
    if object_stores.is_s3(path):
        return object_stores.opened(path)
    if path.startswith(_DBFS):  # Databricks shows Python the same files in folders
        name = path.removeprefix(_DBFS).lstrip("/")
        return pafs.LocalFileSystem(), f"/{name}" if name.startswith("Volumes/") else f"/dbfs/{name}"
    if "://" in path or path.startswith("file:"):
        try:
            filesystem, name = pafs.FileSystem.from_uri(path)
            return filesystem, name
        except (pa.ArrowInvalid, OSError) as error:
            raise InputError(
                f"cannot open {path}: {error}. Use a local path (on Databricks /Volumes/... or dbfs:/...) or a URI "
                "of s3, gs, abfs or hdfs."
            ) from None
    return pafs.LocalFileSystem(), path


def _mendable(work: F) -> F:
    """Decorate what works on a path, its first argument: an object store's refusal is an InputError that says why."""

    @wraps(work)
    def told(path: str, *arguments: Any) -> Any:
        with object_stores.mendable(path):
            return work(path, *arguments)

    return cast(F, told)


@_mendable
def read_json(path: str) -> Any | None:
    """The value in a JSON file, or None when there is no such file."""
    filesystem, name = resolve(path)
    if filesystem.get_file_info(name).type != pafs.FileType.File:
        return None
    with filesystem.open_input_stream(name) as stream:
        return json.loads(stream.read())


@_mendable
def read(path: str) -> bytes:
    """All of a file. Raises OSError."""
    filesystem, name = resolve(path)
    with filesystem.open_input_stream(name) as stream:
        return bytes(stream.read())


def write_json(path: str, value: Any) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    write(path, json.dumps(value, indent=2, default=str).encode())


@_mendable
def write(path: str, data: bytes) -> None:
    """Write a file so that a reader sees all of it or nothing."""
    filesystem, name = resolve(path)
    folder = name.rpartition("/")[0]  # none: a bare name lies where the process does
    if folder and filesystem.type_name != "s3":  # which has no folders
        filesystem.create_dir(folder, recursive=True)
    # An object store shows an object when it is whole; elsewhere a rename does that.
    direct = filesystem.type_name in ("s3", "gcs", "abfs")
    target = name if direct else f"{name}.{uuid.uuid4().hex}.tmp"
    try:
        with filesystem.open_output_stream(target) as stream:
            stream.write(data)
    except OSError:  # half a file would take the room of the next one
        if not direct and filesystem.get_file_info(target).type == pafs.FileType.File:
            filesystem.delete_file(target)
        raise
    if not direct:
        filesystem.move(target, name)


def parquet(table: pa.Table) -> bytes:
    """A table as a file."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


def read_parquet(folder: str, columns: list[str] | None = None) -> Iterator[pa.Table]:
    """The Parquet files of a folder, one after the other. Raises OSError."""
    for name in files(folder):
        if name.endswith(".parquet"):
            yield pq.read_table(pa.BufferReader(read(f"{folder}/{name}")), columns=columns)


@_mendable
def exists(path: str) -> bool:
    """Whether a file or folder is there."""
    filesystem, name = resolve(path)
    return bool(filesystem.get_file_info(name).type != pafs.FileType.NotFound)


@_mendable
def delete(path: str) -> None:
    """Remove a file, or a folder and all in it, if it is there."""
    filesystem, name = resolve(path)
    kind = filesystem.get_file_info(name).type
    if kind == pafs.FileType.Directory:
        filesystem.delete_dir(name)
    elif kind == pafs.FileType.File:
        filesystem.delete_file(name)


def size(path: str) -> int:
    """Bytes of all files in a folder, at any depth; 0 when it is not there."""
    return sum(info.size for info in _all_files(path))


def newest(path: str) -> float | None:
    """When the newest file in a folder, at any depth, was written, in seconds since 1970; None when there is none."""
    times = [info.mtime.timestamp() for info in _all_files(path) if info.mtime is not None]
    return max(times, default=None)


@_mendable
def _all_files(path: str) -> list[pafs.FileInfo]:
    filesystem, name = resolve(path)
    selector = pafs.FileSelector(name, recursive=True, allow_not_found=True)
    return [info for info in filesystem.get_file_info(selector) if info.type == pafs.FileType.File]


def folders(path: str) -> list[str]:
    """Names of the folders in a folder; none when it is not there."""
    return _names(path, pafs.FileType.Directory)


def files(path: str) -> list[str]:
    """Names of the files in a folder; none when it is not there."""
    return _names(path, pafs.FileType.File)


@_mendable
def _names(path: str, kind: pafs.FileType) -> list[str]:
    filesystem, name = resolve(path)
    selector = pafs.FileSelector(name, allow_not_found=True)
    return sorted(info.base_name for info in filesystem.get_file_info(selector) if info.type == kind)
