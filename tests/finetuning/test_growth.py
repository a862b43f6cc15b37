"""Progressive fine-tuning: sizes and augmentation grow, and the model that is kept has its own size."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colour_photos import colour_photos

from keras_effnet._keras import keras
from keras_effnet.finetuning import phases
from keras_effnet.finetuning.growth import make_stages
from keras_effnet.finetuning.run import finetune
from keras_effnet.finetuning.settings import Settings
from keras_effnet.models import create
from keras_effnet.variants import tiny


def test_sizes_and_augmentation_grow() -> None:
    stages = make_stages(Settings(progressive=True, epochs=14, smallest_crop=0.5, mixup=0.3, cutmix=0.6), 224)
    assert [stage.size for stage in stages] == [128, 160, 192, 224]
    assert [stage.until for stage in stages] == [3, 7, 10, 14]
    assert [stage.smallest_crop for stage in stages] == pytest.approx([0.75, 2 / 3, 7 / 12, 0.5])
    assert [stage.mixup for stage in stages] == pytest.approx([0, 0.1, 0.2, 0.3])
    assert [stage.cutmix for stage in stages] == pytest.approx([0, 0.2, 0.4, 0.6])


@pytest.mark.parametrize(("epochs", "untils"), [(1, [1]), (2, [1, 2]), (3, [1, 2, 3]), (4, [1, 2, 3, 4])])
def test_with_few_epochs_the_last_stage_is_the_full_size(epochs: int, untils: list[int]) -> None:
    stages = make_stages(Settings(progressive=True, epochs=epochs), 240)
    assert [stage.until for stage in stages] == untils
    assert stages[-1].size == 240


def test_a_run_that_is_not_progressive_has_one_stage() -> None:
    (stage,) = make_stages(Settings(epochs=3, mixup=0.2), 224)
    assert (stage.size, stage.smallest_crop, stage.mixup, stage.until) == (224, 0.5, 0.2, 3)


def test_a_progressive_run_trains_at_each_size_and_keeps_the_full_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keras.utils.set_random_seed(1)
    create(tiny(), classes=4, input_shape=(56, 56, 3)).save(tmp_path / "tiny.keras")
    made = phases.training_batches
    sizes: list[int] = []
    mixed: list[bool] = []

    def noted(*args: Any, **options: Any) -> Any:
        for images, labels in made(*args, **options):
            sizes.append(images.shape[1])
            mixed.append(bool(((labels > 0) & (labels < 1)).any()))
            yield images, labels

    monkeypatch.setattr(phases, "training_batches", noted)
    photos = colour_photos(tmp_path / "colours", each=10)
    settings = {"unfreeze": 1, "epochs": 4, "head_epochs": 2, "head_learning_rate": 0.1, "learning_rate": 0.05}
    totals: list[int] = []
    callback = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: totals.append(callback.params["epochs"]))
    grown: dict[str, Any] = {"progressive": True, "mixup": 0.5, "cutmix": 0.5, "callbacks": [callback]}
    result = finetune(photos, model=tmp_path / "tiny.keras", **grown, **settings)
    assert totals == [2] * 2 + [4] * 4  # the head's, and the total of all stages
    assert list(dict.fromkeys(sizes)) == [32, 40, 48, 56]
    assert not any(mixed[: len(mixed) // 8])
    assert any(mixed[-2:])
    blocks = [row for row in result.history if row.phase == "blocks"]
    assert [row.epoch for row in blocks] == [1, 2, 3, 4]
    assert result.classifier.model.input_shape == (None, 56, 56, 3)
    # The model that is kept was trained: its validation loss is the last measured one.
    assert result.report()["val_accuracy"] in (blocks[-1].val_accuracy, result.report()["head_val_accuracy"])
    assert np.ptp([row.val_loss for row in blocks]) > 0
