"""Checks of arguments that need neither TensorFlow nor Keras, so that a wrong one is reported at once."""

import glob
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from keras_effnet.variants import VARIANTS, Variant, find_variant

if TYPE_CHECKING:
    from keras_effnet.data.training_photos import TrainingPhotos

if TYPE_CHECKING:
    from keras_effnet.inference.labels import ModelOptions


@contextmanager
def naming(option: str) -> Iterator[None]:
    """Name the option in errors about its value."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("--"):
            error.args = (f"{option}: {error}",)
        raise


def check_model(model: str, weights: str | None = None, *, option: str = "--model") -> Variant | None:
    """Check that a model exists, and that a network given by name has these weights.

    Args:
        model: a name or a path.
        weights: of a network given by name.
        option: how the model was given.

    Returns:
        The network, None if the model is a file or a folder.

    Raises:
        ValueError: the model does not exist, or weights were given for a model that has its own.
        WeightsError: the network has no such weight set, and there is no such file.
    """
    try:
        network = find_variant(model)
    except ValueError:
        with naming(option):
            _check_path(model, weights)
        return None
    if model not in VARIANTS and Path(model).exists():
        return None
    if weights is not None and not _exists(weights):
        from keras_effnet.weights.published import find_weights

        with naming("--weights"):
            find_weights(network.name, weights)
    return network


def _check_path(model: str, weights: str | None) -> None:
    path = Path(model)
    if not path.exists():
        if not path.suffix and len(path.parts) == 1:
            try:
                find_variant(model)
            except ValueError as error:
                raise ValueError(f"{error} There is no file or folder of this name either.") from None
        raise ValueError(
            f"There is no model {model!r}. Expected one of {', '.join(VARIANTS)}, or the path of a saved model. Check "
            "the path."
        )
    if weights is not None:
        raise ValueError(
            f"--weights is {weights!r}, but the saved model {model!r} has its own weights. Omit --weights, or give the "
            "name of a network as --model."
        )


def _exists(weights: str) -> bool:
    path = Path(weights)
    return path.exists() or path.with_name(f"{path.name}.index").is_file()  # a TensorFlow checkpoint


def check_folder(option: str, name: str) -> Path:
    """Check that the name of an output folder is not that of a file.

    Raises:
        ValueError: it is a file.
    """
    if Path(name).is_file():
        raise ValueError(f"{option} is {name!r}, a file. Expected a folder. Choose another name.")
    return Path(name)


def reject_address(name: str) -> None:
    """Reject an address: nothing is downloaded but published weights.

    Raises:
        ValueError: the name is an address.
    """
    if re.match(r"(https?|ftp)://", name, re.IGNORECASE):
        raise ValueError(
            f"{name!r} is an address, and photos are not downloaded. Expected a file or a folder. Download it first, "
            f"for example with curl -LO {name}."
        )


def check_data(names: list[str], expected: str) -> None:
    """Check that files and folders of photos exist; patterns have to match a file.

    Raises:
        ValueError: a local name does not exist.
    """
    for name in names:
        reject_address(name)
        local = not name.startswith("tfds:") and "://" not in name
        if local and not Path(name).exists() and not glob.glob(name):  # noqa: PTH207 - pathlib has no absolute patterns
            raise ValueError(f"There is no data {name!r}. Expected {expected}. Check the path.")


def find_training_photos(name: str) -> "TrainingPhotos | str":
    """List the photos to train on; a name in TensorFlow Datasets, which needs TensorFlow, is returned unchanged.

    Raises:
        ValueError: there is no data, it has fewer than two classes, or an unknown layout.
    """
    reject_address(name)
    if name.startswith("tfds:"):
        return name
    from keras_effnet.data.training_photos import open_training_photos

    return open_training_photos(name)


def merge_data(given: list[str] | None, option: list[str] | None) -> tuple[list[str], str]:
    """The data of a command that takes it as an argument or as --data, and how it was given.

    Raises:
        typer.BadParameter: there is none.
    """
    if not given and not option:
        raise typer.BadParameter("give the data to train on.", param_hint="DATA")
    return [*(given or ()), *(option or ())], "DATA" if given else "--data"


def check_unfreeze(network: Variant | None, stages: int | str) -> None:
    """Check the part of a network to train. The blocks of a saved model are not known yet.

    Raises:
        ValueError: the network has fewer stages, or the name is not that of a block.
    """
    if network is None:
        return
    count = len(network.stages)
    if isinstance(stages, int):
        valid = 0 <= stages <= count
    else:
        block = re.fullmatch(r"stem|top|block(\d+)[a-z]+", stages)
        valid = block is not None and (block[1] is None or 1 <= int(block[1]) <= count)
    if not valid:
        raise ValueError(
            f"--unfreeze is {stages!r}. Expected a number of stages from 0 to {count}, or the first block, for example "
            "block6a, stem or top."
        )


def model_options(labels: str | None, size: int | None, crop: str, decode: str | None = None) -> "ModelOptions":
    """The options --labels, --size, --crop and --decode, checked, as arguments of the Python API.

    Raises:
        ValueError: the file of labels cannot be read, or the crop or the way of decoding is unknown.
    """
    from keras_effnet.inference.labels import as_classes

    if crop not in ("auto", "center", "none"):
        raise ValueError(f"--crop is {crop!r}. Expected center or none.")
    if decode not in (None, "exact", "fast"):
        raise ValueError(f"--decode is {decode!r}. Expected exact or fast.")
    with naming("--labels"):
        classes = as_classes(labels) if labels is not None else None
    return {"labels": classes, "size": size, "crop": None if crop == "none" else crop, "decode": decode}
