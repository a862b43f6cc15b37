"""Reads the official TensorFlow checkpoints: a folder, a prefix or a .tar.gz, with moving averages if it has them."""

import re
import shutil
import tarfile
import tempfile
from pathlib import Path

import numpy as np

from keras_effnet.complexity import complexity
from keras_effnet.errors import WeightsError
from keras_effnet.scaling import block_name, is_depthwise
from keras_effnet.variants import Variant
from keras_effnet.weights.formats.checkpoint_bundle import Bundle
from keras_effnet.weights.formats.layer_names import layer_names, variables
from keras_effnet.weights.formats.other_formats import OBJECT_GRAPH, refuse_object_graph

GZIP_MAGIC = b"\x1f\x8b"
STEM = "/stem/conv2d/kernel"
# Optimizer slots that may be in a checkpoint; they are ignored.
SLOTS = ("RMSProp", "RMSProp_1", "Momentum", "Adam", "Adam_1")
# An archive may contain up to five copies of the network (weights, averages, optimizer slots), plus this many bytes.
COPIES, ROOM = 5, 64 << 20


def read_tf_checkpoint(path: Path, variant: Variant, *, ema: bool = True) -> dict[str, np.ndarray]:
    """Read the weights of a network from an official checkpoint.

    Args:
        path: a folder, the prefix of a checkpoint (without ".index"), or a .tar.gz of a folder.
        variant: the network.
        ema: read the exponential moving averages, to which the published accuracies refer, instead of the weights.

    Returns:
        "layer/variable" -> array, with the names of keras.applications; possibly read-only views of the file.

    Raises:
        WeightsError: there is no checkpoint or more than one, it is of another network, or the archive contains other
            things. Damage may also raise errors of the standard library.
    """
    if path.is_dir():
        return _read(_prefix(path), variant, ema)
    if path.with_name(path.name + ".index").is_file():
        return _read(path, variant, ema)
    with tempfile.TemporaryDirectory() as folder:
        _unpack(path, Path(folder), COPIES * 4 * complexity(variant).parameters + ROOM)
        # The folder is deleted on return, which would invalidate views of its files on some systems.
        return {name: array.copy() for name, array in _read(_prefix(Path(folder)), variant, ema).items()}


def _prefix(folder: Path) -> Path:
    found = sorted(folder.rglob("*.index"))
    if len(found) != 1:
        raise WeightsError(
            f"There are {len(found)} checkpoints in {folder.name!r}. Expected one: *.index with its *.data files. "
            "Pass the prefix of the one you want: its path without '.index'."
        )
    return found[0].with_suffix("")


def _unpack(archive: Path, folder: Path, limit: int) -> None:
    """Extract the files of a checkpoint, ignoring folders in the archive, up to `limit` bytes."""
    with tarfile.open(archive, "r|gz") as tar:
        for member in tar:
            name = Path(member.name).name
            if member.isdir() or not (member.isfile() and re.search(r"\.index$|\.data-\d{5}-of-\d{5}$", name)):
                if member.issym() or member.islnk() or member.isdev():
                    raise WeightsError(_refuse(f"the link or device {member.name[:100]!r}"))
                continue
            if ".." in Path(member.name).parts or Path(member.name).is_absolute() or (folder / name).exists():
                raise WeightsError(
                    _refuse(f"the member {member.name[:100]!r}, which is outside the archive or a duplicate")
                )
            limit -= member.size
            if limit < 0:
                raise WeightsError(_refuse(f"more bytes than the network can need ({name} has {member.size:,})"))
            source = tar.extractfile(member)
            if source is not None:
                with (folder / name).open("wb") as target:
                    shutil.copyfileobj(source, target)


def _read(prefix: Path, variant: Variant, ema: bool) -> dict[str, np.ndarray]:
    bundle = Bundle(prefix)
    if OBJECT_GRAPH in bundle.entries:
        refuse_object_graph(prefix)
    models = [name.removesuffix(STEM) for name in bundle.entries if name.endswith(STEM)]
    if len(models) != 1:
        raise WeightsError(
            f"The checkpoint has {len(models)} variables that end in {STEM!r}. Expected one network, as in "
            "'efficientnet-b0/stem/conv2d/kernel'. Pass a checkpoint of the official EfficientNet."
        )
    names = {ours: f"{models[0]}/{theirs}" for ours, theirs in tf_names(variant).items()}
    averaged = any(name.endswith(EMA) for name in bundle.entries)
    suffix = EMA if ema and averaged else ""
    state = {ours: bundle.read(name + suffix) for ours, name in names.items() if name + suffix in bundle.entries}
    known = {name + end for name in names.values() for end in ("", EMA, *(f"/{slot}" for slot in SLOTS))}
    unknown = [name for name in bundle.entries if name.startswith(f"{models[0]}/") and name not in known]
    if unknown:
        raise WeightsError(
            f"The checkpoint has {len(unknown)} variables that {variant.name} does not have: {', '.join(unknown[:5])}. "
            f"Expected the variables of {variant.name}. Choose the variant of the checkpoint."
        )
    return state


def _refuse(what: str) -> str:
    return (
        f"The archive contains {what}. Expected the files of one checkpoint: *.index and *.data-*. It is not the "
        "published archive: download it again."
    )


EMA = "/ExponentialMovingAverage"
NORM = "tpu_batch_normalization"
ENDS = {
    "stem_conv": "stem/conv2d",
    "stem_bn": f"stem/{NORM}",
    "top_conv": "head/conv2d",
    "top_bn": f"head/{NORM}",
    "predictions": "head/dense",
}
# TensorFlow numbers the unnamed layers of a block in the order of their creation.
BLOCK = (
    ("_expand_conv", "conv2d"),
    ("_expand_bn", NORM),
    ("_dwconv", "depthwise_conv2d"),
    ("_bn", NORM),
    ("_se_reduce", "se/conv2d"),
    ("_se_expand", "se/conv2d"),
    ("_project_conv", "conv2d"),
    ("_project_bn", NORM),
)


def tf_names(variant: Variant) -> dict[str, str]:
    """ "layer/variable" -> name in a checkpoint, without the prefix of the model's name.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> tf_names(VARIANTS["b0"])["block1a_project_conv/kernel"]
        'blocks_0/conv2d/kernel'
    """
    known = set(layer_names(variant).values())
    layers = dict(ENDS)
    blocks = [block_name(i, j) for i, row in enumerate(variant.stages, start=1) for j in range(row.repeats)]
    for n, block in enumerate(blocks):
        counts: dict[str, int] = {}
        for suffix, kind in BLOCK:
            layer = f"{block}_{variant.depthwise}" if suffix == "_dwconv" else block + suffix
            if layer in known:
                number = counts[kind] = counts.get(kind, -1) + 1
                layers[layer] = f"blocks_{n}/{kind}" + (f"_{number}" if number else "")
    return {
        f"{layer}/{name}": f"{place}/{'depthwise_' if is_depthwise(layer) else ''}{name}"
        for layer, place in layers.items()
        for name in variables(layer)
    }
