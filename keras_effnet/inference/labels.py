"""The labels of a model's outputs: from a list, from a file, or ImageNet's."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

from keras_effnet.artifacts import LABELS
from keras_effnet.data.class_names import Classes
from keras_effnet.errors import counted
from keras_effnet.imagenet import CLASS_INDEXES, class_index

# A file with one label per line; or labels, or pairs (wnid or None, label), in the order of the outputs; or a mapping
# between labels and outputs in either direction, as `class_indices` of Keras and `id2label` of transformers.
Labels = str | os.PathLike[str] | Sequence[str | tuple[str | None, str]] | Mapping[Any, Any]


class ImageOptions(TypedDict, total=False):
    """How photos become the images of a model.

    Args:
        size: side of the images in pixels, for a network by name or a model that takes images of any size.
        crop: "center" for the central square of each photo, None for the whole photo, resized to a square without
            keeping its aspect ratio. By default "auto": what the network was evaluated with or an export was made for.
        decode: "exact", or "fast": JPEG files are decoded at the smallest size (a half, a quarter, an eighth) at which
            the part that the model sees still has twice the size of the model's images. By default what the model was
            made with, or "exact". Fast takes half the time for photos of 12 megapixels, and smooths them.
    """

    size: int | None
    crop: str | None
    decode: str | None


class ModelOptions(ImageOptions, total=False):
    """What can be said about a model wherever one is used: also `size`, `crop` and `decode` of `ImageOptions`.

    Args:
        labels: the labels of the outputs, in their order: a list, or a text file with one label per line. By default
            the lines of labels.txt beside a saved model, ImageNet's labels, or the indices of other classes.
    """

    labels: Labels | None


def as_classes(labels: Labels) -> Classes:
    """The classes that labels stand for.

    Raises:
        ValueError: the file cannot be read, or something in a list is not a label.

    Example:
        >>> as_classes(["rose", "tulip"]), as_classes({"rose": 1, "daisy": 0})
        (((None, 'rose'), (None, 'tulip')), ((None, 'daisy'), (None, 'rose')))
    """
    if isinstance(labels, str | os.PathLike):
        return read_label_file(Path(labels))
    rows = _in_order(labels) if isinstance(labels, Mapping) else list(labels)
    return tuple(_pair(row, number) for number, row in enumerate(rows))


def _pair(row: Any, number: int) -> tuple[str | None, str]:
    if isinstance(row, str):
        return None, row
    if isinstance(row, tuple | list) and len(row) == 2 and isinstance(row[1], str) and isinstance(row[0], str | None):
        return row[0], row[1]
    raise ValueError(
        f"Label {number} is {row!r}. Expected a string, or a pair (wnid or None, label). Convert numbers with str()."
    )


def _in_order(labels: Mapping[Any, Any]) -> list[Any]:
    """The labels of a mapping by output, whichever side the numbers are on."""
    by_output = {value: key for key, value in labels.items()} if any(isinstance(k, str) for k in labels) else labels
    if all(isinstance(key, str) and key.isdecimal() for key in labels):  # JSON has only strings as keys
        by_output = {int(key): value for key, value in labels.items()}
    if set(by_output) != set(range(len(labels))):
        raise ValueError(
            f"The labels are a mapping with the outputs {', '.join(map(str, list(by_output)[:5]))}. Expected every "
            f"output from 0 to {len(labels) - 1} once. Pass a list of labels in the order of the outputs."
        )
    return [by_output[output] for output in range(len(labels))]


def read_label_file(file: Path) -> Classes:
    """The classes in a text file, one label per line.

    Raises:
        ValueError: the file cannot be read, or contains no labels.
    """
    try:
        text = file.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The file {str(file)!r} is not UTF-8 at byte {error.start}. Expected one label per line. Save it as UTF-8."
        ) from error
    except OSError as error:
        raise ValueError(
            f"The labels {str(file)!r} cannot be read: {error.strerror}. Expected a text file with one label per line, "
            "or a list of labels. Check the path."
        ) from error
    # Not splitlines(): it also splits at characters that can occur in a label.
    classes = tuple((None, line.strip()) for line in text.split("\n") if line.strip())
    if not classes:
        raise ValueError(f"The file {str(file)!r} is empty. Expected one label per line. Write the labels into it.")
    return classes


def read_classes(folder: Path) -> Classes | None:
    """The classes of a saved model: the lines of labels.txt in its folder. None if there is no such file."""
    file = folder / LABELS
    return read_label_file(file) if file.is_file() else None


def fit_labels(classes: Classes, outputs: int, model: str) -> Classes:
    """The classes of a model's scores. A single probability becomes two: the opposite of its label, and its label.

    Args:
        classes: one for each output; for a single output one or two, of which the second is the likelier the larger
            the output is, as in Keras's binary data sets.
        outputs: the number of outputs of the model.
        model: its name, for the message.

    Raises:
        ValueError: there are more or fewer labels than outputs.

    Example:
        >>> fit_labels(((None, "dog"),), 1, "m"), fit_labels(((None, "cat"), (None, "dog")), 1, "m")
        (((None, 'not dog'), (None, 'dog')), ((None, 'cat'), (None, 'dog')))
    """
    if outputs == 1 and len(classes) == 1:
        return (None, f"not {classes[0][1]}"), classes[0]
    if len(classes) != (2 if outputs == 1 else outputs):
        expected = "one or two labels for a single output" if outputs == 1 else "one label per output"
        raise ValueError(
            f"The model {model!r} has {counted(outputs, 'output')}, but there are {counted(len(classes), 'label')}. "
            f"Expected {expected}. Pass labels=, a list or a file with one label per line; or correct labels.txt in "
            "the folder of the saved model."
        )
    return classes


def default_classes(outputs: int) -> Classes:
    """ImageNet's classes; for another number of outputs their indices.

    Example:
        >>> default_classes(3), default_classes(1000)[281]
        (((None, '0'), (None, '1'), (None, '2')), ('n02123045', 'tabby'))
    """
    if outputs in CLASS_INDEXES:
        return class_index(outputs)
    return tuple((None, str(i)) for i in range(max(2, outputs)))


def unlabelled(name: str, outputs: int) -> ValueError:
    """The error about a model without labels where labels are needed."""
    return ValueError(
        f"The model {name!r} has {counted(outputs, 'output')} and no labels: it returns features. Expected a model "
        "that ends in a classifier. Pass labels= if the outputs are classes; Predictor(...).scores returns features."
    )
