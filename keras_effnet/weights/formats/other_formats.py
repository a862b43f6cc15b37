"""Formats that are recognised but not read, each with a way out; and the weight file in a folder of Hugging Face."""

from collections.abc import Collection
from pathlib import Path

from keras_effnet.errors import WeightsError

# The weight files that `save_pretrained` of transformers and timm writes, the preferred one first.
PRETRAINED = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
ORBAX = ("_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt", "checkpoint.msgpack")

_SAVE_WEIGHTS = "Load the model where it was made, and save its weights: model.save_weights('model.weights.h5')."
_KERAS_2 = (
    "If Keras made it, load the model, or build it and call load_weights (for Keras 2: pip install tf_keras); then "
    "save the weights of the EfficientNet with save_weights('model.weights.h5')."
)
# By the suffix of a file: the format, and the way out.
_SUFFIXES = {
    ".onnx": ("an ONNX model", _SAVE_WEIGHTS),
    ".tflite": ("a LiteRT (TensorFlow Lite) model", _SAVE_WEIGHTS),
    ".pb": ("a TensorFlow graph", _SAVE_WEIGHTS),
    ".npz": ("an archive of NumPy arrays", _SAVE_WEIGHTS),
    ".xml": ("an OpenVINO model", _SAVE_WEIGHTS),
    ".mlmodel": ("a Core ML model", _SAVE_WEIGHTS),
    ".msgpack": ("a checkpoint of Flax", "Convert it to safetensors with the library that wrote it."),
    ".gguf": ("a GGUF file", "Convert it to safetensors with the library that wrote it."),
}


def weight_file(path: Path) -> Path:
    """The weight file in a folder that `save_pretrained` wrote; any other path is returned unchanged.

    Raises:
        WeightsError: the weights are split into several files.
    """
    if not path.is_dir():
        return path
    found = next((path / name for name in PRETRAINED if (path / name).is_file()), path)
    if found == path and any((path / f"{name}.index.json").is_file() for name in PRETRAINED):
        raise WeightsError(
            f"{path}: The folder contains weights in several files. Expected one file, such as {PRETRAINED[0]}. Save "
            "it again with a larger max_shard_size."
        )
    return found


def refuse_other_format(path: Path) -> None:
    """Reject files and folders of formats that are known but not read.

    Raises:
        WeightsError: the path is of such a format; the message names it and a way out.
    """
    if path.is_dir():
        if (path / "saved_model.pb").is_file() and not (path / "variables" / "variables.index").is_file():
            raise WeightsError(_refuse("a SavedModel of TensorFlow without variables", _KERAS_2))
        if any((path / name).exists() for name in ORBAX):
            raise WeightsError(_refuse("a checkpoint of Orbax (JAX)", "Save its arrays with safetensors."))
        return
    suffix = path.suffix.lower()
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(8)
        if start[4:] == b"TFL3":
            suffix = ".tflite"
    if suffix in _SUFFIXES and not (path.with_name("variables") / "variables.index").is_file():
        raise WeightsError(_refuse(*_SUFFIXES[suffix]))


def refuse_foreign_variables(prefix: Path, names: Collection[str]) -> None:
    """Reject a checkpoint or SavedModel none of whose variables belongs to a known EfficientNet.

    Args:
        prefix: of the checkpoint.
        names: the names of its variables.
    """
    saved_model = (prefix.parent.parent / "saved_model.pb").is_file()
    shown = ", ".join(sorted(names)[:5])[:300] if names else "none (its weights may be constants of its graph)"
    raise WeightsError(
        f"This is a {'SavedModel' if saved_model else 'checkpoint'} of TensorFlow whose variables are not those of a "
        f"known EfficientNet: {shown}. Expected the layers of keras.applications or of the official EfficientNet. "
        f"{_KERAS_2}"
    )


def _refuse(what: str, way_out: str) -> str:
    return (
        f"This is {what}, which is not read as weights. Expected HDF5 (.h5, .weights.h5), .keras, PyTorch (.pth, .pt, "
        f".bin), .safetensors, or a TensorFlow checkpoint or SavedModel of an EfficientNet. {way_out}"
    )
