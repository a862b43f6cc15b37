"""What a fine-tuning run starts from: its settings, photos and output folder, checked before Keras is imported."""

import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from keras_effnet.data.training_photos import TrainingPhotos, open_training_photos
from keras_effnet.finetuning.settings import Settings, make_settings


@dataclass(frozen=True)
class Inputs:
    """What a run starts from.

    Args:
        data: where the photos are.
        settings: of the run.
        folder: for the results; None to write nothing.
    """

    data: str
    settings: Settings
    folder: Path | None

    @cached_property
    def photos(self) -> TrainingPhotos:
        """The photos to train and to evaluate on."""
        return open_training_photos(self.data, val_share=self.settings.val_share, seed=self.settings.seed)


def open_inputs(
    data: str | os.PathLike[str],
    out: str | os.PathLike[str] | None,
    *,
    overwrite: bool,
    settings: Mapping[str, Any],
) -> Inputs:
    """Check the settings and the output folder, and find the photos, except those of TensorFlow Datasets.

    Args:
        data, out, overwrite: as in `finetune`.
        settings: the settings that differ from their defaults.

    Raises:
        TypeError: an unknown setting.
        ValueError: the data, the settings or the folder cannot be used.
    """
    chosen = make_settings(settings)
    folder = None if out is None else check_folder(out, overwrite=overwrite)
    inputs = Inputs(os.fspath(data), chosen, folder)
    if not inputs.data.startswith("tfds:"):  # which imports TensorFlow
        _ = inputs.photos
    return inputs


def check_folder(folder: str | os.PathLike[str], *, overwrite: bool) -> Path:
    """Check, before any work, that the output folder is new or empty and can be written. It is not created yet.

    Raises:
        ValueError: the folder is not empty and `overwrite` is not set, or it is not writable.
    """
    path = Path(folder)
    try:
        # Hidden files belong to the system, or are temporary files of a killed run.
        taken = path.exists() and any(not inside.name.startswith(".") for inside in path.iterdir())
        with tempfile.TemporaryFile(dir=next(parent for parent in (path, *path.absolute().parents) if parent.exists())):
            pass
    except OSError as error:
        raise ValueError(
            f"The folder {str(path)!r} cannot be written to: {error.strerror}. Expected a writable folder for the "
            "results. Choose another one."
        ) from error
    if taken and not overwrite:
        raise ValueError(
            f"The folder {str(path)!r} is not empty. Expected a new or empty folder, so that no earlier result is "
            "lost. Choose another one, or overwrite it (--overwrite, overwrite=True)."
        )
    return path
