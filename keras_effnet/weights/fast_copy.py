"""The fast copy of a published set: a safetensors file in the cache, with Keras's names and axes, that loads quickly.

The original remains authoritative. A fast copy is used only if it has the sha256 pinned next to it, and if its metadata
names a source file and digest that the record still lists. Damage and changes are therefore found by hashing one file.
Any other copy counts as missing, and is replaced the next time the original is read.
"""

import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_effnet.artifacts import staged
from keras_effnet.errors import WeightsError
from keras_effnet.variants import VARIANTS
from keras_effnet.weights.cache import (
    LocalFile,
    SourceError,
    cache_directories,
    locked,
    pin,
    pin_path,
    pinned,
    verify_digest,
)
from keras_effnet.weights.registry import Weights

if TYPE_CHECKING:
    from keras_effnet.weights.formats.checkpoints import Checkpoint

FORMAT = "keras_effnet 1"  # increase the number whenever the contents of the file change

log = logging.getLogger("keras_effnet")


def fast_copy_name(record: Weights, *, include_top: bool = True) -> str:
    """The file name of the fast copy of a set.

    Example:
        >>> from keras_effnet.weights.registry import WEIGHTS
        >>> fast_copy_name(WEIGHTS["b7", "noisy-student"])
        'b7-noisy-student.safetensors'
    """
    return f"{record.variant}-{record.name}{'' if include_top else '-notop'}.safetensors"


def fast_copy_paths(record: Weights, *, include_top: bool = False) -> list[Path]:
    """Where a fast copy of a set may be, with the classifier first; without it only unless `include_top`."""
    names = (
        [fast_copy_name(record)] if include_top else [fast_copy_name(record), fast_copy_name(record, include_top=False)]
    )
    return [directory / name for name in names for directory in cache_directories()]


def find_fast_copy(record: Weights, *, include_top: bool = True) -> LocalFile | None:
    """The fast copy of a set on this machine, None if there is none that is intact and up to date."""
    copies = (verify_fast_copy(path, record) for path in fast_copy_paths(record, include_top=include_top))
    return next((copy for copy in copies if copy), None)


def verify_fast_copy(path: Path, record: Weights) -> LocalFile | None:
    """A fast copy, None if it is damaged or was not made from a file that the record lists."""
    try:
        digest = pinned(path)
        found = verify_digest(path, digest) if digest else None
        return found if found and _read_metadata(path).get("source") in set(_origins(record)) else None
    except (OSError, ValueError, struct.error):  # an unreadable file counts as missing
        return None


def _origins(record: Weights) -> Iterator[str]:
    """Every source that the metadata of a valid fast copy may name."""
    for source in (*record.sources, *record.headless):
        for directory in cache_directories():
            path = directory / source.filename
            if digest := source.digest or pinned(path):
                yield _origin(path, digest)


def _origin(path: Path, digest: str) -> str:
    return f"{FORMAT}, {path.name} {digest}"


def save_fast_copy(record: Weights, path: Path, checkpoint: "Checkpoint | None" = None) -> None:
    """Write the fast copy of a set. Failures are logged: another process may be writing it, or the cache be read-only.

    Args:
        record: the set.
        path: its original; files of Python packages and fast copies are not copied.
        checkpoint: the contents of the original, if it has already been read.
    """
    source = next((each for each in (*record.sources, *record.headless) if each.filename == path.name), None)
    if source is None:
        return
    from keras_effnet.weights.formats.checkpoints import read_checkpoint  # NumPy, which listing the sets does not need

    try:
        checkpoint = checkpoint or read_checkpoint(path, VARIANTS[record.variant])
        target = cache_directories()[0] / fast_copy_name(record, include_top="predictions/bias" in checkpoint.state)
        if not verify_fast_copy(target, record) and not _is_foreign(target):
            target.parent.mkdir(parents=True, exist_ok=True)  # for the lock
            with locked(target, 0):
                _write(target, checkpoint, record, _origin(path, source.digest or pinned(path)))
    except (OSError, SourceError, WeightsError) as error:
        log.info("No fast copy of %s was saved: %s", path, error)


def _is_foreign(target: Path) -> bool:
    """Whether the user put a file of that name there; a damaged fast copy still has its pinned digest."""
    made_here = _read_metadata(target).get("source", "").startswith(FORMAT.split()[0]) if target.exists() else True
    return not (made_here or pin_path(target).exists())


def _read_metadata(path: Path) -> dict[str, str]:
    from keras_effnet.weights.formats.safetensors import read_metadata  # NumPy, which listing the sets does not need

    return read_metadata(path)


def _write(target: Path, checkpoint: "Checkpoint", record: Weights, origin: str) -> None:
    from keras_effnet.weights.formats.safetensors import write_safetensors

    normalization = checkpoint.normalization or record.normalization
    metadata = {"source": origin, "normalization": json.dumps([normalization.mean, normalization.std])}
    with staged(target) as part:
        write_safetensors(part, checkpoint.state, metadata)
    pin(target)
