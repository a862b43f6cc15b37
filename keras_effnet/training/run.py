"""`train`: train a network from a recipe, or resume a run, and write the results (arXiv:1905.11946, section 5.2)."""

import json
import os
import sys
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from keras_effnet import __version__
from keras_effnet._keras import LEGACY, keras
from keras_effnet.artifacts import LABELS, MODEL, REPORT, staged
from keras_effnet.data.image_audit import OddFiles
from keras_effnet.data.training_data import Data, TrainingData, open_training_data
from keras_effnet.errors import counted
from keras_effnet.forks import check_fork
from keras_effnet.inference.rebuild import resized
from keras_effnet.reports.model_card import CARD, RUN_LOAD, Card, Metric, model_card
from keras_effnet.training.checkpointing import Saver, Saving
from keras_effnet.training.devices import Devices, check_plan, lost_workers_reported, open_devices, wait_for_all
from keras_effnet.training.fit import Session, fit_epochs
from keras_effnet.training.plan import Plan, build, make_plan, synchronize
from keras_effnet.training.recipes import Recipe, find_recipe
from keras_effnet.training.state import BEST, Progress, claim_settings, finish_state, restore_state, states
from keras_effnet.variants import Variant, find_variant
from keras_effnet.weights.loading import load_weights


@dataclass(frozen=True)
class Trained:
    """A trained model and the report of its run.

    Args:
        model: the model with the best weights (averaged, if the recipe averages them).
        folder: the folder of the run.
        report: the contents of report.json.
        new_epochs: the number of epochs that were trained now; 0 if the run in the folder was finished.
    """

    model: Any
    folder: Path
    report: dict[str, Any]
    new_epochs: int = 0


def train(
    data: Data,
    out: str | os.PathLike[str],
    *,
    model: str | Variant = "b0",
    recipe: str | Recipe = "imagenet",
    strategy: str = "one",
    strict: bool = False,
    checkpoint_every: int | None = None,
    keep_checkpoint: bool = False,
    callbacks: Sequence[Any] = (),
    verbose: int | str = "auto",
) -> Trained:
    """Train a network from a recipe, or resume an interrupted run.

    The accuracy on the held-out images decides which epoch's weights are kept. All random numbers follow from the
    recipe's seed, which is also set as Keras's global seed.

    Args:
        data: a folder with one folder per class, or with train/ and val/; a CSV file; TFRecord files in ImageNet's
            layout; "tfds:NAME[:SPLIT]"; or arrays (images, labels), as in `open_training_data`.
        out: folder of the run. If it contains an unfinished run with the same settings, training resumes from the last
            saved epoch or step, and ends with the same weights as an uninterrupted run (under tf_keras only without
            dropout and stochastic depth, whose random state cannot be saved). A recipe with more epochs continues a
            finished run.
        model: "b0", "lite0", ..., or your own `Variant`.
        recipe: a key of `RECIPES`, or your own `Recipe`, such as `replace(RECIPES["imagenet"], epochs=10)`.
        strategy: "one", "mirrored", "multiworker", "tpu", "jax-data-parallel" or "auto", as in `open_strategy`. All
            processes need access to the folder of the run; only the first process writes to it.
        strict: reject images that are not plain RGB, instead of converting and counting them.
        checkpoint_every: also save a checkpoint after this many steps within an epoch. May change on resuming.
        keep_checkpoint: keep the last checkpoint of a finished run, about four times the size of the model, so that
            more epochs continue exactly. Otherwise they start from the best weights with a new optimizer.
        callbacks: Keras callbacks for `fit`, such as `keras.callbacks.TensorBoard`.
        verbose: as in `fit`.

    Raises:
        ConnectionError: another process has stopped.
        OSError: the results cannot be written; progress since the last checkpoint is lost.
        ValueError: the data, recipe, strategy or folder cannot be used, or the loss is not finite.
        WeightsError: the initial weights cannot be loaded.

    Example:
        >>> import tempfile
        >>> from dataclasses import replace
        >>> import numpy as np
        >>> from keras_effnet.variants import tiny
        >>> images, labels = np.zeros((16, 32, 32, 3), np.uint8), np.arange(16) % 2
        >>> recipe = replace(find_recipe("imagenet"), epochs=1, batch_size=4, holdout=0.25)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train((images, labels), folder, model=tiny(), recipe=recipe, verbose=0).report["epochs"]
        1
    """
    check_fork()
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    variant = find_variant(model) if isinstance(model, str) else model
    # First, because a strategy has to be opened before TensorFlow or JAX computes anything.
    devices = open_devices(strategy)
    found = open_training_data(data, holdout=recipe.holdout, seed=recipe.seed)
    plan = make_plan(recipe, variant, found)
    with lost_workers_reported(devices):
        session = _open_session(Path(out), plan, found, devices, strict=strict, checkpoint_every=checkpoint_every)
        return _train(replace(session, callbacks=tuple(callbacks)), verbose=verbose, keep_checkpoint=keep_checkpoint)


def _open_session(
    folder: Path, plan: Plan, data: TrainingData, devices: Devices, *, strict: bool, checkpoint_every: int | None
) -> Session:
    """Start a run in the folder, or restore it from its latest checkpoint."""
    device_notes = check_plan(devices, plan, data)
    writes, alone = devices.process_index == 0, devices.process_count == 1
    settings = claim_settings(folder, _settings(plan, data)) if writes else {}
    keras.utils.set_random_seed(plan.recipe.seed)
    with devices.scope():
        network, ema = build(plan)
        progress, notes = restore_state(folder, network, ema)
    progress.notes += [*notes, *_extended(progress, plan, exactly=bool(states(folder)))]
    progress.settings = settings
    odd = OddFiles(data.train.total, strict), OddFiles(data.held_out.total, strict)
    saving = Saving(
        plan.steps,
        plan.batch_size,
        checkpoint_every,
        plan.recipe.patience,
        writes=writes,
        alone=alone,
        **({} if alone else {"all_gather": devices.all_gather}),
    )
    saver = Saver(folder, progress, saving, ema=ema, odd=odd)
    session = Session(network, plan, data, devices, saver, device_notes)
    _wait_for_all(session)
    saver.check_best(network)
    return session


def _extended(progress: Progress, plan: Plan, *, exactly: bool) -> list[str]:
    """A note if the run is longer than it was planned, and whether it equals a run of this length."""
    planned = progress.settings
    if not planned or progress.epoch >= plan.epochs or planned["epochs"] == plan.recipe.epochs:
        return []
    note = f"The run was continued after epoch {progress.epoch}, up to epoch {plan.epochs}."
    if not exactly:
        note += " It started from the best weights with a new optimizer, as a finished run keeps no checkpoint."
    if plan.recipe.schedule == "cosine":
        note += " Its cosine schedule was planned anew, so it differs from an uninterrupted run of this length."
    return [note]


def _train(session: Session, *, verbose: int | str, keep_checkpoint: bool) -> Trained:
    """Train the remaining epochs, and write the results."""
    network, saver = session.network, session.saver
    start, folder, before = time.perf_counter(), saver.folder, saver.progress.epoch
    over = saver.progress.epoch >= session.plan.epochs or saver.out_of_patience
    if not over:
        fit_epochs(session, verbose=verbose if saver.saving.writes else 0)
    # With synchronised batch normalisation, the saved model would not load on other backends.
    synchronize(network, False)
    report = _read_report(folder, saver.progress.epoch) if over else None
    try:
        saver.finish()
        _wait_for_all(session)
        load_weights(network, folder / BEST)
        # The optimizer belongs to the network in training, which takes images of any size in a progressive run.
        kept = network if session.plan.input_size else resized(network, session.plan.held_out_size)
        whole = report is not None and zipfile.is_zipfile(folder / MODEL)
        if report is None:
            report = {**_report(session), "seconds": round(time.perf_counter() - start, 1)}
        if not whole:
            with saver.output_folder() as output:
                # In every process: with JAX, saving creates variables, which all processes have to do together.
                _write(output, kept, session.data, report)
        finish_state(folder, network, saver.progress, keep=keep_checkpoint, writes=saver.saving.writes)
    except OSError as error:
        raise OSError(_unwritten(folder, error)) from error
    return Trained(kept, folder, report, saver.progress.epoch - before)


def _wait_for_all(session: Session) -> None:
    progress = session.saver.progress
    if session.saver.saving.alone:
        return
    wait_for_all(session.devices, progress.epoch * session.plan.steps + progress.step, session.saver.folder)


def _read_report(folder: Path, epochs: int) -> dict[str, Any] | None:
    """The report of a run with this many epochs; None if it was interrupted before the report was written."""
    try:
        report = dict(json.loads((folder / REPORT).read_text("utf-8")))
    except (OSError, ValueError):
        return None
    return report if report.get("epochs") == epochs else None


def _unwritten(folder: Path, error: OSError) -> str:
    return (
        f"The results cannot be written to {str(folder)!r}: {error}. Expected enough disk space for the model and a "
        "checkpoint. Free some space and run the same command again: training resumes from the last checkpoint."
    )


def _settings(plan: Plan, data: TrainingData) -> dict[str, Any]:
    recipe = {key: value for key, value in asdict(plan.recipe).items() if key not in ("record", "name")}
    images = {"train": data.train.total, "held out": data.held_out.total}
    network = {"model": plan.variant.name, "variant": asdict(plan.variant), "size": plan.held_out_size}
    found = {"classes": plan.classes, "images": images, "digest of names and labels": data.digest}
    return {**network, **found, "keras": _flavour(), **recipe}


def _flavour() -> str:
    return "tf_keras" if LEGACY else "keras"


def _report(session: Session) -> dict[str, Any]:
    plan, data, devices = session.plan, session.data, session.devices
    progress, odd = session.saver.progress, session.saver.odd
    modules = ("keras", "tf_keras", "tensorflow", "numpy", "PIL")
    versions = {n: sys.modules[n].__version__ for n in modules if hasattr(sys.modules.get(n), "__version__")}
    best = progress.best or {}
    return {
        "model": plan.variant.name,
        "recipe": plan.recipe.name,
        "val_accuracy": best.get("val_accuracy"),
        "best_epoch": best.get("epoch"),
        "epochs": progress.epoch,
        "steps_per_epoch": plan.steps,
        "batch_size": plan.recipe.batch_size,
        "resolution": plan.held_out_size,
        **_stages(session),
        "seed": plan.recipe.seed,
        "images": {"train": data.train.total, "held_out": data.held_out.total},
        "classes": len(data.classes),
        "odd_files": {"train": odd[0].report(), "held_out": odd[1].report()},
        "notes": [*data.notes, *session.notes, *progress.notes],
        "versions": {"keras_effnet": __version__, **versions},
        "strategy": devices.name,
        "replicas": devices.replicas,
        "processes": devices.process_count,
    }


def _stages(session: Session) -> dict[str, Any]:
    """The stages of a progressive run, with the time to the first step of those that were begun in this process."""
    if len(session.plan.stages) == 1:
        return {}
    seconds = {entered.stage: entered.seconds for entered in session.stages}
    return {"stages": [{**asdict(stage), "seconds_to_start": seconds.get(stage)} for stage in session.plan.stages]}


def _write(folder: Path, network: Any, data: TrainingData, report: dict[str, Any]) -> None:
    # Saved without the optimizer, which could only be loaded where this package is installed.
    plain = keras.Model(network.input, network.output, name=network.name)
    with staged(folder / MODEL) as part:
        plain.save(part)
    with staged(folder / LABELS) as part:
        part.write_text("".join(f"{name}\n" for name in data.classes), "utf-8")
    with staged(folder / REPORT) as part:
        part.write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    with staged(folder / CARD) as part:
        part.write_text(_card(report, data.classes), "utf-8")


def _card(report: dict[str, Any], labels: Sequence[str]) -> str:
    images, accuracy = report["images"], report["val_accuracy"]
    count = images["held_out"]
    measured = [Metric("accuracy", accuracy, count, "held-out images")] if accuracy is not None and count else []
    return model_card(
        Card(
            name=f"{report['model']}, trained on {len(labels)} classes",
            labels=labels,
            size=report["resolution"],
            library="keras",
            base=f"{report['model']}, recipe {report['recipe']}, {report['epochs']} epochs",
            weights=None,
            data=f"{counted(images['train'], 'image')} for training, {counted(count, 'image')} held out",
            metrics=measured,
            load=RUN_LOAD,
            limits=("The held-out images also decided which epoch was kept, so unseen ones may get a lower accuracy.",),
        )
    )
