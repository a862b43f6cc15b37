"""Verifies the published weights: digests, structure, and published predictions.

command   python weights/verify.py [--variant b0] [--set imagenet] [--fetch] [--panda PHOTO]
          without --fetch, nothing is downloaded, and files that are not in a package or the cache are "missing"
expected  a table; without a network and with an empty cache, Lite0-2 are "ok" four times each, other sets "missing";
          exits with 1 on a mismatch, and with --fetch also on a missing file
hardware  any; 40 seconds for Lite0-2 on 2 busy CPU cores
needs     pip install "keras_effnet[quickstart,lite1,lite2]"
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from goldens import GOLDENS, PANDA, Golden

from keras_effnet.errors import WeightsError
from keras_effnet.images import ImageError, load_image, sample
from keras_effnet.variants import VARIANTS, find_variant
from keras_effnet.weights.cache import digest_matches
from keras_effnet.weights.download import fetch
from keras_effnet.weights.published import find_local, find_weights, list_weights, locate, possible_files
from keras_effnet.weights.registry import Source, Weights

LITE_LOGITS = Path(__file__).parent.parent / "tests" / "goldens" / "lite_logits.npz"
# timm's largest logits are about 10; the order of float32 sums changes them by less than this.
LOGITS_TOLERANCE = 1e-4
OK, MISMATCH, DOUBTFUL, ABSENT = "ok", "MISMATCH", "doubtful", "missing"

Photos = Callable[[str], np.ndarray]


class Row(NamedTuple):
    """One row of the table: the set, the check and its result."""

    variant: str
    name: str
    check: str
    verdict: str
    detail: str = ""


def verify(record: Weights, *, fetching: bool, photos: Photos) -> Iterator[Row]:
    """All checks of one set.

    Args:
        record: the set.
        fetching: download the set if it is not on this machine.
        photos: returns the pixels of a photograph by name, uint8 (height, width, 3).
    """
    key = record.variant, record.name
    try:
        found = find_local(record) is not None
    except WeightsError as error:
        yield Row(*key, "digest", MISMATCH, str(error))
        return
    reason = ""
    if not found and fetching:
        try:
            found = locate(record).is_file()
        except WeightsError as error:
            reason = str(error)
    yield from _digests(record)
    if not found:
        yield Row(*key, "file", ABSENT, reason)
        return
    try:
        model = build(record)
    except WeightsError as error:
        yield Row(*key, "structure", MISMATCH, str(error))
        return
    yield Row(*key, "structure", OK, f"{len(model.weights)} arrays with the right names and shapes")
    yield from _lite_logits(record, model)
    for golden in GOLDENS:
        if (golden.variant, golden.name) == key:
            yield judge(golden, model, photos)


def _digests(record: Weights) -> Iterator[Row]:
    """Check the digest of every file of a set on this machine."""
    for path, digest in possible_files(record):
        if path.is_file():
            whole = bool(digest) and digest_matches(path, digest)
            verdict = OK if whole else MISMATCH if digest else DOUBTFUL
            yield Row(record.variant, record.name, "digest", verdict, f"{path.name} {digest or 'has no known digest'}")


def build(record: Weights) -> Any:
    """The network of a set with its weights loaded strictly; computes logits from pixels 0..255."""
    import keras_effnet

    builder = getattr(keras_effnet, VARIANTS[record.variant].builder)
    return builder(weights=record.name, classifier_activation=None)


def _logits(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(pixels[None].astype(np.float32)), np.float64)[0]


def _lite_logits(record: Weights, model: Any) -> Iterator[Row]:
    """Compare with logits computed by timm from the files in the Lite packages, on cropped photographs."""
    size = VARIANTS[record.variant].resolution
    with np.load(LITE_LOGITS) as goldens:
        for photo in ("chelsea", "coffee"):
            if record.name == "imagenet" and f"{record.variant}_{photo}" in goldens:
                logits = _logits(model, sample(photo)[10 : 10 + size, 100 : 100 + size])
                off = np.abs(logits - goldens[f"{record.variant}_{photo}"]).max()
                verdict = OK if off <= LOGITS_TOLERANCE else MISMATCH
                yield Row(
                    record.variant,
                    record.name,
                    f"logits of {photo}",
                    verdict,
                    f"differ from timm's by at most {off:.1e}",
                )


def judge(golden: Golden, model: Any, photos: Photos) -> Row:
    """Compare a network with a published prediction.

    Args:
        golden: the published prediction.
        model: its `predict_on_batch` computes logits (1, 1000) from pixels (1, size, size, 3) in 0..255.
        photos: returns the pixels of a photograph by name, uint8 (height, width, 3).
    """
    row = golden.variant, golden.name, f"prediction for {golden.photo}"
    try:
        image = photos(golden.photo)
    except (WeightsError, ImageError, ImportError) as error:
        return Row(*row, ABSENT, str(error))
    logits = _logits(model, golden.prepare(image, VARIANTS[golden.variant].resolution))
    powers = np.exp(logits - logits.max())
    found = powers[golden.index] / powers.sum()
    off, first = abs(found - golden.probability), int(logits.argmax())
    right = first == golden.index and off <= golden.tolerance
    detail = f"class {first}, {found:.7f} for {golden.index}, {golden.probability:.7f} published"
    if golden.doubt and not right:
        return Row(*row, DOUBTFUL, f"{detail}; {golden.doubt}")
    return Row(*row, OK if right else MISMATCH, detail)


def photographs(panda: str | None, *, fetching: bool) -> Photos:
    """A loader of photographs: from scikit-image, or the panda from a file, the cache or the network."""

    def load(name: str) -> np.ndarray:
        if name != "panda":
            return sample(name)
        if panda is None and not fetching:
            raise ImageError("needs --fetch, or --panda with the photograph")
        return load_image(panda or fetch((Source(PANDA, ""),), "The photograph", check=_is_image))

    return load


def _is_image(path: Path) -> None:
    try:
        load_image(path)
    except ImageError as error:
        raise WeightsError(str(error)) from error


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", help="only the sets of this network")
    parser.add_argument("--set", help="only the sets of this name")
    parser.add_argument("--fetch", action="store_true", help="download missing files")
    parser.add_argument("--panda", help=f"a local copy of {PANDA}")
    options = parser.parse_args(arguments)
    photos = photographs(options.panda, fetching=options.fetch)
    verdicts = []
    for record in _records(parser, options):
        for row in verify(record, fetching=options.fetch, photos=photos):
            print(f"{row.variant:<6} {row.name:<14} {row.check:<22} {row.verdict:<9} {row.detail}".rstrip(), flush=True)
            verdicts.append(row.verdict)
    print(", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (OK, DOUBTFUL, ABSENT, MISMATCH)))
    sys.exit(MISMATCH in verdicts or (options.fetch and ABSENT in verdicts))


def _records(parser: argparse.ArgumentParser, options: argparse.Namespace) -> list[Weights]:
    try:
        variant = options.variant and find_variant(options.variant).name
        if variant and options.set:
            return [find_weights(variant, options.set)]
    except ValueError as error:
        parser.error(str(error))
    keys = [key for key in list_weights(variant) if options.set in (None, key[1])]
    if not keys:
        names = ", ".join(sorted({name for _, name in list_weights()}))
        parser.error(f"--set is {options.set!r}. Expected one of {names}.")
    return [find_weights(*key) for key in keys]


if __name__ == "__main__":
    main()
