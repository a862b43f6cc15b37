"""The devices of a run: one interface for TensorFlow's strategies and JAX's, and what to check before training."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.sharding import Share
from keras_effnet.data.training_data import TrainingData
from keras_effnet.errors import first_line
from keras_effnet.training.jax_devices import JaxDevices
from keras_effnet.training.plan import Plan
from keras_effnet.training.recipes import CHOICES, Recipe
from keras_effnet.training.tf_devices import TensorFlowDevices
from keras_effnet.training.tf_strategies import choose_strategy, open_strategy


class Devices(Protocol):
    """What a run needs to know about its devices; `TensorFlowDevices` and `JaxDevices` implement it."""

    @property
    def name(self) -> str:
        """The strategy's key in `STRATEGIES`."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Why "auto" chose this strategy."""

    @property
    def process_index(self) -> int:
        """The index of this process; process 0 writes the files."""

    @property
    def process_count(self) -> int:
        """The number of processes."""

    @property
    def replicas(self) -> int:
        """The number of copies of the model, over all processes."""

    @property
    def share(self) -> Share:
        """The part of every batch that this process reads."""

    def scope(self) -> AbstractContextManager[Any]:
        """Context in which the model is built and compiled."""

    def batches(self, make: Callable[..., Any]) -> Any:
        """The dataset for `fit`; `make(share=...)` builds the tf.data.Dataset of one process."""

    def validation_steps(self, total: int, batch_size: int) -> int | None:
        """The value of `validation_steps` for `fit`: None, except with several processes under tf_keras."""

    def all_gather(self, value: int) -> list[int]:
        """The values that all processes pass here, in order; waits until every process has called it."""

    def is_lost_worker(self, error: Exception) -> bool:
        """Whether this error means that another process has stopped."""


def open_devices(name: str) -> Devices:
    """Open the devices of a strategy; call it before anything is computed.

    Raises:
        ValueError: the strategy does not exist, or cannot be used on this machine.

    Example:
        >>> open_devices("one").replicas
        1
    """
    notes: tuple[str, ...] = ()
    if name == "auto":
        name, why = choose_strategy()
        notes = (f"strategy: auto chose {name}: {why}.",)
    strategy = open_strategy(name)
    return (
        JaxDevices(name, strategy, notes) if name == "jax-data-parallel" else TensorFlowDevices(name, strategy, notes)
    )


def check_plan(devices: Devices, plan: Plan, data: TrainingData) -> tuple[str, ...]:
    """Check that the devices can run a plan.

    Returns:
        Notes for the report.

    Raises:
        ValueError: the batch size is not a multiple of the replicas, there are fewer held-out images than replicas,
            or the recipe uses something that Keras does in each replica separately.
    """
    notes = list(devices.notes)
    _check_batch_size(devices, plan.batch_size)
    _check_recipe(devices, plan.recipe)
    if left := devices.share.left_out(data.held_out.total, plan.batch_size):
        notes.append(f"{left} of {data.held_out.total} held-out images are not used: batches must have equal sizes.")
    if devices.name == "tpu" and plan.recipe.precision == "float32":
        notes.append("The precision is float32; on a TPU mixed_bfloat16 is faster and needs half the memory.")
    return tuple(notes)


def _check_batch_size(devices: Devices, batch_size: int) -> None:
    count = devices.replicas
    if batch_size % count:
        near = max(1, round(batch_size / count)) * count
        raise ValueError(
            f"A batch has {batch_size} images, and there are {count} replicas. Expected a multiple of {count}. Choose "
            f"another batch size, such as {near}."
        )


def _check_recipe(devices: Devices, recipe: Recipe) -> None:
    if devices.replicas == 1 or keras.backend.backend() != "tensorflow":
        return
    # tf_keras reduces the gradients of all replicas before it adjusts the loss scale; Keras 3 does not.
    precisions = CHOICES["precision"] if LEGACY else ("float32", "mixed_bfloat16")
    for field, can in (("global_clipnorm", (None,)), ("accumulate", (1,)), ("precision", precisions)):
        if getattr(recipe, field) not in can:
            raise ValueError(
                f"{field} is {getattr(recipe, field)!r} with {devices.replicas} replicas. Expected "
                f"{' or '.join(map(str, can))}, because Keras clips, accumulates and scales the loss in each replica "
                "separately. Drop it, or use KERAS_BACKEND=jax with jax-data-parallel."
            )


def wait_for_all(devices: Devices, steps: int, folder: Path) -> None:
    """Wait for the other processes, and check that all have finished the same number of steps.

    Raises:
        ValueError: the numbers differ.
    """
    found = devices.all_gather(steps)
    if len(set(found)) > 1:
        raise ValueError(
            f"The processes found {found} finished steps in {str(folder)!r}. Expected the same number in all. Choose "
            "a folder that all machines share."
        )


@contextmanager
def lost_workers_reported(devices: Devices) -> Iterator[None]:
    """Turn the network errors that follow the loss of another process into one clear error.

    Raises:
        ConnectionError: another process has stopped.
    """
    try:
        yield
    except Exception as error:
        index, count = devices.process_index, devices.process_count
        if count == 1 or not devices.is_lost_worker(error):
            raise
        raise ConnectionError(
            f"Worker {index} of 0 to {count - 1} has lost another worker: {first_line(error)!r}. Expected all workers "
            "to run until the end. Read the last output of the one that stopped, fix the problem, and run the same "
            "command on all of them again: training resumes from the last checkpoint."
        ) from error
