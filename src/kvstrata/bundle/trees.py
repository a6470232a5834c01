"""Folders of Python packages for a bundle: packed, and on request without the device code of other GPUs.

For hosts whose own Python brings some of the packages, as images of NVIDIA and others do, and for links that are slow:
wheels of torch, vLLM and CUDA are 4 GB, of which one GPU runs the smaller part.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import re
import shutil
import stat
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from kvstrata.bundle import gpucode
from kvstrata.bundle.standalone import BundleError

TREES_FOLDER = "trees"
_ABOUT = "about.json"
# So large that few archives are there, and so small that all cores have some.
_ARCHIVE_BYTES = 128 << 20
_LEVEL = 6
_LEFT_OUT = frozenset({"__pycache__"})


@dataclass(frozen=True)
class Packed:
    """A tree as it goes into a bundle."""

    folder: Path
    """Holds its archives, NNNN.tar.gz."""
    about: dict[str, Any]
    """For the manifest: files, bytes, gpu_arch, blanked_bytes."""


def pack(tree: Path, cache: Path, architecture: int | None) -> Packed:
    """Pack a folder once; what is packed already, and not changed since, is taken from the cache.

    Args:
        tree: the folder; its own name is its name in the bundle.
        cache: the controller's.
        architecture: keep the device code for this one alone (90 for sm_90), None: keep all.

    Raises:
        BundleError: there is no such folder, or it has something that is no file, folder or link within it.
    """
    name = tree.absolute().name
    if not tree.is_dir():
        raise BundleError(f"--tree {tree}: no such folder")
    if not re.fullmatch(r"[A-Za-z0-9._-]+", name):
        raise BundleError(f"--tree {tree}: the folder's name is {name!r}; allowed: letters, digits, . _ -")
    files = list(_files(tree))
    stamp = [[each, status.st_size, status.st_mtime_ns, status.st_mode] for each, status in files]
    digest = hashlib.sha256(json.dumps([str(tree.absolute()), architecture, stamp]).encode()).hexdigest()[:12]
    target = cache / TREES_FOLDER / f"{name}-{digest}"
    if not (target / _ABOUT).is_file():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        groups = list(_groups([(each, status.st_size) for each, status in files]))
        with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            jobs = [
                pool.submit(_archive, tree, g, partial / f"{n:04d}.tar.gz", architecture) for n, g in enumerate(groups)
            ]
            pruned = [job.result() for job in jobs]
        about = {
            "files": len(files),
            "bytes": sum(status.st_size for _, status in files),
            "gpu_arch": architecture,
            **{field: sum(asdict(one)[field] for one in pruned) for field in ("containers", "own", "blanked_bytes")},
        }
        (partial / _ABOUT).write_text(json.dumps(about) + "\n")
        shutil.rmtree(target, ignore_errors=True)
        partial.rename(target)
    return Packed(target, json.loads((target / _ABOUT).read_text()))


def archives(packed: Packed) -> list[Path]:
    """Return the archives, in their order."""
    return sorted(packed.folder.glob("*.tar.gz"))


def _files(tree: Path) -> Iterator[tuple[str, os.stat_result]]:
    for base, folders, names in os.walk(tree):
        folders[:] = sorted(set(folders) - _LEFT_OUT)
        links = [name for name in folders if Path(base, name).is_symlink()]
        for name in sorted([*names, *links]):
            path = Path(base, name)
            status = path.lstat()
            if path.is_symlink() and not path.resolve().is_relative_to(tree.resolve()):
                raise BundleError(f"{path} leads to {path.resolve()}; allowed: links within {tree}")
            if not stat.S_ISLNK(status.st_mode) and not stat.S_ISREG(status.st_mode):
                raise BundleError(f"{path} is no file, folder or link")
            yield path.relative_to(tree).as_posix(), status


def _groups(files: Sequence[tuple[str, int]]) -> Iterator[list[str]]:
    group: list[str] = []
    size = 0
    for name, length in files:
        if group and size + length > _ARCHIVE_BYTES:
            yield group
            group, size = [], 0
        group.append(name)
        size += length
    if group:
        yield group


def _archive(tree: Path, names: Sequence[str], target: Path, architecture: int | None) -> gpucode.Pruned:
    """Write one archive; the same files give the same bytes, whoever owns them and whenever they were written."""
    total = gpucode.Pruned()
    with (
        gzip.GzipFile(filename="", fileobj=target.open("wb"), mode="wb", compresslevel=_LEVEL, mtime=0) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name in names:
            path = tree / name
            entry = archive.gettarinfo(str(path), arcname=name)
            entry.uid = entry.gid = entry.mtime = 0
            entry.uname = entry.gname = ""
            # A second name of a file that is in another archive could not be unpacked.
            if entry.islnk():
                entry.type, entry.linkname, entry.size = tarfile.REGTYPE, "", path.stat().st_size
            if not entry.isreg():
                archive.addfile(entry)
                continue
            content = bytearray(path.read_bytes())
            if architecture is not None and gpucode.is_library(bytes(content[:4]), len(content)):
                found = gpucode.prune(content, architecture)
                total = gpucode.Pruned(
                    total.containers + found.containers,
                    total.own + found.own,
                    total.blanked_bytes + found.blanked_bytes,
                )
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return total
