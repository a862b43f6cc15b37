"""Reads whole Keras models from .keras and .h5 files, without running code that they contain."""

from pathlib import Path
from typing import Any

from keras_effnet.errors import first_line
from keras_effnet.variants import VARIANTS


def read_model(path: Path) -> Any:
    """Read a whole Keras model.

    Raises:
        ValueError: the file does not exist, is not a whole model, or cannot be loaded.
    """
    _check(path)
    from keras_effnet._keras import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many types; its messages contain whole configs
        raise ValueError(
            f"The model {str(path)!r} cannot be loaded: {first_line(error)} Expected a whole model "
            "without custom code. Save the model again with this version of Keras; or load only its weights into a "
            f"network by name: weights={str(path)!r}, or --weights on the command line."
        ) from error


def _check(path: Path) -> None:
    """Reject paths that are not whole Keras models; "there is no model" is only said where there is nothing."""
    if not path.exists():
        raise ValueError(
            f"There is no model {str(path)!r}. Expected one of {', '.join(VARIANTS)}, or the path of a .keras file. "
            "Choose one of these, or save a model with model.save('name.keras')."
        )
    if path.is_dir() or path.suffix not in (".keras", ".h5", ".hdf5") or path.name.endswith(".weights.h5"):
        raise ValueError(
            f"The model {str(path)!r} is not a whole Keras model. Expected a .keras or .h5 file of model.save(). Load "
            "a weight file into a network by name: weights=, or --weights on the command line. Exported models "
            "(.tflite, .onnx, SavedModel) are run by Predictor, keras-effnet classify and keras-effnet evaluate."
        )
