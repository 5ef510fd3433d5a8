"""The folder of an exported model: arrays under a name of their own, and a manifest, which is written last."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import DTypeLike, NDArray

from sparkrec import __version__, storage
from sparkrec.errors import InputError

MANIFEST, MLMODEL = "manifest.json", "MLmodel"
FORMAT = 1
"""Of the folder. Whoever changes what is in it, so that an older reader would answer otherwise, counts on."""
_WHAT = "an exported model of sparkrec"
_SMALL = 1 << 16
"""Bytes of a file that is read instead of mapped: numpy maps no empty array."""


@dataclass
class Writing:
    """A folder that is being written."""

    folder: Path
    _maps: list[np.memmap[Any, Any]] = field(default_factory=list)

    def mapped(self, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
        """An array of zeros to be filled, which is in its file and not in memory."""
        if 0 in shape:
            return self.array(name, np.zeros(shape, dtype))
        made = np.lib.format.open_memmap(self.folder / f"{name}.npy", "w+", dtype, shape)
        self._maps.append(made)
        return made

    def array(self, name: str, values: NDArray[Any]) -> NDArray[Any]:
        """Write an array."""
        np.save(self.folder / f"{name}.npy", values, allow_pickle=False)
        return values

    def bytes(self, name: str, data: bytes) -> None:
        """Write a file."""
        (self.folder / name).write_bytes(data)

    def digests(self) -> dict[str, dict[str, Any]]:
        """Size and digest of each file, once all arrays are on the disk."""
        for made in self._maps:
            made.flush()
        return {
            path.name: {"bytes": path.stat().st_size, "sha256": _sha256(path)} for path in sorted(self.folder.iterdir())
        }


@contextmanager
def writing(path: str, facts: dict[str, Any], overwrite: bool) -> Iterator[Writing]:
    """Write a folder: what is written counts once the block has ended well, and takes the place of what was there.

    facts  for the manifest; the block may add to them, and has to add `ids`, the types of the ids of both sides
    Raises InputError, before anything is written, where the path is no local one, or the folder has something else, or
    an exported model and `overwrite` is false.
    """
    root = _local(path)
    old = _manifest(root)
    if old is None and root.exists() and any(root.iterdir()):
        raise InputError(
            f"{path} holds something else, or {_WHAT} that was cut short; expected an empty folder, or none. Choose "
            "another, or delete it."
        )
    if old is not None and not overwrite:
        raise InputError(f"{path} has {_WHAT}, {old.get('model')}: choose another folder, or export with --overwrite.")
    name = uuid.uuid4().hex
    folder = root / name
    folder.mkdir(parents=True)
    try:
        out = Writing(folder)
        yield out
        files = out.digests()
        digest = hashlib.sha256("".join(f"{each}{files[each]['sha256']}" for each in files).encode()).hexdigest()
        manifest = {"what": _WHAT, "format": FORMAT, "version": __version__, "folder": name, **facts}
        storage.write(f"{root}/{MLMODEL}", yaml.safe_dump(_ml_model(facts["ids"]), sort_keys=False).encode())
        storage.write_json(f"{root}/{MANIFEST}", {**manifest, "digest": digest, "files": files})
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    if old is not None:
        shutil.rmtree(root / old["folder"], ignore_errors=True)


class Opened:
    """A folder that was written."""

    def __init__(self, path: str) -> None:
        root = _local(path)
        manifest = _manifest(root)
        if manifest is None:
            raise InputError(
                f"{path} has no {MANIFEST} of {_WHAT}: expected a folder that `sparkrec export` has written."
            )
        if manifest["format"] != FORMAT:
            raise InputError(
                f"{path} has format {manifest['format']}, written by sparkrec {manifest['version']}; this one, "
                f"{__version__}, reads format {FORMAT}. Export the model again, or install that version."
            )
        self.manifest: dict[str, Any] = manifest
        self._folder = root / manifest["folder"]
        for name, about in manifest["files"].items():
            found = (self._folder / name).stat().st_size if (self._folder / name).is_file() else None
            if found != about["bytes"]:
                raise InputError(
                    f"{self._folder / name}: found {'no file' if found is None else f'{found:,} bytes'}, expected "
                    f"{about['bytes']:,} bytes. The copy is not whole: copy or export it again."
                )

    def check(self) -> None:
        """Read all files. Raises InputError where one is not as it was written."""
        for name, about in self.manifest["files"].items():
            if _sha256(self._folder / name) != about["sha256"]:
                raise InputError(f"{self._folder / name} is not as it was written: copy or export it again.")

    def has(self, name: str) -> bool:
        """Whether there is an array."""
        return f"{name}.npy" in self.manifest["files"]

    def array(self, name: str) -> NDArray[Any]:
        """An array, read-only; a large one is mapped, so that memory holds what of it is read."""
        path = self._folder / f"{name}.npy"
        small = path.stat().st_size < _SMALL
        found = np.load(path, allow_pickle=False) if small else np.load(path, mmap_mode="r", allow_pickle=False)
        found = np.asarray(found)  # slices of a memmap are slow
        found.flags.writeable = False
        return found

    def arrays(self, prefix: str) -> Mapping[str, NDArray[Any]]:
        """All arrays whose names begin so, by what follows."""
        names = (name.removesuffix(".npy") for name in self.manifest["files"] if name.endswith(".npy"))
        return {name.removeprefix(prefix): self.array(name) for name in names if name.startswith(prefix)}

    def bytes(self, name: str) -> bytes | None:
        """A file; None: there is none."""
        return (self._folder / name).read_bytes() if name in self.manifest["files"] else None


def _local(path: str) -> Path:
    if "://" in path:
        raise InputError(
            f"{path}: found a URI, expected a local folder: its arrays are mapped into memory. Copy it here."
        )
    return Path(os.path.abspath(path))


def _manifest(root: Path) -> dict[str, Any] | None:
    found = storage.read_json(f"{root}/{MANIFEST}")
    return found if isinstance(found, dict) and found.get("what") == _WHAT else None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _ml_model(ids: dict[str, str]) -> dict[str, Any]:
    """What MLflow reads of a folder, which is a model of its own, without MLflow.

    ids  types of the ids of each side: string or long
    """

    def column(name: str, kind: str, a_list: bool = False, required: bool = False) -> dict[str, Any]:
        about = {"type": "array", "items": {"type": kind}} if a_list else {"type": kind}
        return {**about, "name": name, "required": required}

    items = column("items", ids["item"], a_list=True)
    inputs = [column("user", ids["user"]), items, column("values", "double", a_list=True)]
    outputs = [{**items, "required": True}, column("scores", "float", True, True), column("by", "string", False, True)]
    params = [
        {"name": "k", "type": "long", "default": 10, "shape": None},
        {"name": "seen", "type": "boolean", "default": False, "shape": None},
    ]
    loader = {"loader_module": "sparkrec.exported.pyfunc", "python_version": platform.python_version()}
    return {
        "flavors": {"python_function": loader, "sparkrec": {"format": FORMAT, "version": __version__}},
        "signature": {"inputs": json.dumps(inputs), "outputs": json.dumps(outputs), "params": json.dumps(params)},
    }
