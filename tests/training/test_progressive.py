"""Progressive learning: the stages of the published code, one compiled step a size, and resuming at any step."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import short_runs
from short_runs import assert_same, coloured, cut

from keras_effnet._keras import LEGACY, keras
from keras_effnet.inference.classifier import load_classifier
from keras_effnet.models import create
from keras_effnet.training import fit
from keras_effnet.training import run as training
from keras_effnet.training.progressive import make_stages
from keras_effnet.training.recipes import RECIPES
from keras_effnet.variants import VARIANTS, tiny

tf = pytest.importorskip("tensorflow", reason="TensorFlow is not installed")

from keras_effnet.training.optimizers import make_optimizer  # noqa: E402

RECIPE = replace(
    short_runs.RECIPE,
    epochs=4,
    batch_size=16,
    stages=3,
    size=48,
    first_size=32,
    mixup=0.5,
    cutmix=0.5,
    decay_biases=False,
)
SIZES = {
    # arXiv:2104.00298's code: 128 + (train size - 128) * (i + 1) / 4
    "b0": (144, 160, 176, 192),
    "b1": (144, 160, 176, 192),
    "b2": (148, 168, 188, 208),
    "b3": (156, 184, 212, 240),
    "s": (171, 214, 257, 300),
    "m": (192, 256, 320, 384),
    "l": (192, 256, 320, 384),
}
MAGNITUDES = {"s": (5, 6.67, 8.33, 10), "m": (5, 8.33, 11.67, 15), "l": (5, 10, 15, 20)}
ALPHAS = {"m": (0, 0.067, 0.133, 0.2), "l": (0, 0.167, 0.333, 0.5)}


@pytest.mark.parametrize("network", SIZES)
def test_the_stages_of_a_recipe_are_those_of_the_published_code(network: str) -> None:
    variant, recipe = VARIANTS[f"v2-{network}"], RECIPES[f"imagenet-v2-{network}"]
    stages = make_stages(recipe, size=variant.train_resolution, magnitude=recipe.magnitude, epochs=350)
    assert tuple(stage.size for stage in stages) == SIZES[network]
    assert tuple(stage.until for stage in stages) == (87, 175, 262, 350)
    alphas = ALPHAS.get(network, (0, 0, 0, 0))
    assert [stage.mixup for stage in stages] == pytest.approx(alphas, abs=1e-3)
    assert [stage.cutmix for stage in stages] == pytest.approx(alphas, abs=1e-3)
    if network in MAGNITUDES:
        assert recipe.augment == "randaugment"
        assert [stage.magnitude for stage in stages] == pytest.approx(MAGNITUDES[network], abs=5e-3)
    assert recipe.dropout_rate is None
    assert (recipe.stages, recipe.batch_size, recipe.scaled_learning_rate, recipe.ema_decay) == (4, 4096, 0.256, 0.9999)


def test_weight_decay_of_v2_leaves_out_biases_and_normalisation() -> None:
    network = create(tiny(), weights=None, classes=3)
    decayed = {}
    for name in ("imagenet", "imagenet-v2-s"):
        optimizer = make_optimizer(RECIPES[name], 0.1)
        optimizer.build(network.trainable_variables)
        names = {getattr(v, "path", v.name) for v in network.trainable_variables}
        kept = len(optimizer._excluded)
        decayed[name] = len(names) - kept
    kernels = sum("kernel" in getattr(v, "path", v.name) for v in network.trainable_variables)
    assert decayed["imagenet-v2-s"] == kernels
    assert decayed["imagenet"] > kernels


def test_a_size_below_the_first_size_is_rejected() -> None:
    with pytest.raises(ValueError, match="size is 96 in a recipe whose stages begin above 128 pixels. Expected more"):
        make_stages(RECIPES["imagenet-v2-b0"], size=96, magnitude=5, epochs=4)


def run(folder: Path, recipe: Any = RECIPE, **options: Any) -> training.Trained:
    return short_runs.run(coloured(), folder, recipe, **options)


@pytest.fixture(scope="module")
def traced() -> dict[str, list[int | None]]:
    """The sides of the images for which a step of training or validation was traced."""
    return {"sizes": []}


@pytest.fixture(scope="module")
def whole(traced: dict[str, list[int | None]], tmp_path_factory: pytest.TempPathFactory) -> training.Trained:
    """An uninterrupted run of three stages: epoch 1, epoch 2, epochs 3 and 4."""
    with pytest.MonkeyPatch.context() as patch:
        compute = keras.Model.compute_loss

        def noted(self: Any, x: Any = None, *args: Any, **options: Any) -> Any:
            traced["sizes"].append(x.shape[1])
            return compute(self, x, *args, **options)

        patch.setattr(keras.Model, "compute_loss", noted)
        return run(tmp_path_factory.mktemp("whole") / "run", checkpoint_every=1)


def test_the_model_that_is_saved_has_the_size_of_the_held_out_images(whole: training.Trained) -> None:
    assert whole.model.input_shape == (None, 48, 48, 3)
    classifier = load_classifier(whole.folder)
    assert classifier.size == 48
    assert np.isfinite(classifier.scores(np.zeros((1, 48, 48, 3), np.float32))).all()


def test_the_report_contains_the_stages_and_the_time_between_them(whole: training.Trained) -> None:
    report = json.loads((whole.folder / "report.json").read_text())
    assert [stage["size"] for stage in report["stages"]] == [37, 42, 48]
    assert [stage["until"] for stage in report["stages"]] == [1, 2, 4]
    assert [stage["mixup"] for stage in report["stages"]] == [0.0, 0.25, 0.5]
    assert all(stage["seconds_to_start"] > 0 for stage in report["stages"])


@pytest.mark.skipif(LEGACY, reason="tf_keras computes losses elsewhere")
def test_the_training_step_is_compiled_once_for_each_size(
    whole: training.Trained, traced: dict[str, list[int | None]]
) -> None:
    assert whole.report["stages"]
    sizes = traced["sizes"]
    if keras.backend.backend() == "jax":
        # Keras traces the first step once more to find the shapes of the metrics.
        assert sizes.pop(0) == 37
    # The second one is validation.
    assert sizes == [37, 48, 42, 48]


# The last step of a stage, its border, the first step of the next one, and the middle of the last.
@pytest.mark.parametrize(
    "at", [(2, 3), *(pytest.param(at, marks=pytest.mark.slow) for at in [(1, 3), (2, 1), (3, 1), (4, 2)])]
)
def test_a_run_that_is_killed_resumes_to_the_same_weights(
    at: tuple[int, int], whole: training.Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    cut(coloured(), folder, RECIPE, at=at, checkpoint_every=1)
    resumed = run(folder, checkpoint_every=1)
    assert_same(folder, whole.folder)
    for ours, theirs in zip(resumed.model.get_weights(), whole.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_a_stage_is_entered_once_for_consecutive_calls_of_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entered = []
    enter = fit._enter_stage

    def noted(session: Any) -> Any:
        stage = enter(session)
        entered.append((stage.size, len(session.stages)))
        return stage

    monkeypatch.setattr(fit, "_enter_stage", noted)
    folder = tmp_path / "run"
    recipe = replace(RECIPE, epochs=2, stages=1, size=32)
    cut(coloured(), folder, recipe, at=(1, 2), checkpoint_every=1)
    entered.clear()
    report = run(folder, recipe).report
    assert entered == [(32, 1), (32, 1)]
    assert "stages" not in report
