"""The devices of a training: what they can do of a recipe, and that all processes begin at the same place."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_effnet._keras import LEGACY, keras
from keras_effnet.data.training_data import TrainingData
from keras_effnet.training.plan import Plan
from keras_effnet.training.recipes import CHOICES
from keras_effnet.training.tf_processes import (
    check_batch_size,
    is_chief,
    lost_workers_reported,
    processes,
    replicas,
    share_of,
    shared,
    told_by_all,
    validation_steps,
)
from keras_effnet.training.tf_strategies import choose_strategy, open_strategy


@dataclass(frozen=True)
class Devices:
    """A strategy that is open.

    Args:
        name: of it, as in `STRATEGIES`.
        strategy: of tf.distribute or keras.distribution.
        notes: why it was chosen, where "auto" was asked for.
    """

    name: str
    strategy: Any
    notes: tuple[str, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether this process is the one that writes files."""
        return is_chief(self.strategy)

    @property
    def alone(self) -> bool:
        """Whether this process reads all images, and so knows where the next batch begins."""
        return processes(self.strategy)[1] == 1

    def scope(self) -> AbstractContextManager[Any]:
        """In which the model is built and compiled."""
        return self.strategy.scope()

    def batches(self, make: Callable[..., Any]) -> Any:
        """What `fit` takes of a pipeline, which is called with `share=`."""
        return shared(self.strategy, lambda share: make(share=share))

    def validation_steps(self, total: int, batch_size: int) -> int | None:
        """What `fit` takes of the number of batches held out."""
        return validation_steps(self.strategy, total, batch_size)

    def report(self) -> dict[str, Any]:
        """What report.json says of them."""
        return {"strategy": self.name, "replicas": replicas(self.strategy), "processes": processes(self.strategy)[1]}

    def lost_workers_reported(self) -> AbstractContextManager[None]:
        """Say in words that another process is gone."""
        return lost_workers_reported(self.strategy, "it goes on from the last state that was saved.")

    def check(self, plan: Plan, data: TrainingData) -> tuple[str, ...]:
        """Refuse what cannot be done here, and say what will be done otherwise.

        Raises:
            ValueError: a batch that cannot be cut into equal parts, too few held-out images, or something that Keras
                does in each replica where it should be done in all together.
        """
        recipe, share, notes = plan.recipe, share_of(self.strategy), []
        check_batch_size(self.strategy, plan.batch_size)
        if replicas(self.strategy) > 1 and keras.backend.backend() == "tensorflow":
            # tf_keras looks at the gradients of all replicas before it scales the loss.
            precisions = CHOICES["precision"] if LEGACY else ("float32", "mixed_bfloat16")
            for field, can in (("global_clipnorm", (None,)), ("accumulate", (1,)), ("precision", precisions)):
                if getattr(recipe, field) not in can:
                    raise ValueError(
                        f"{field} is {getattr(recipe, field)!r} with {replicas(self.strategy)} replicas. Expected "
                        f"{' or '.join(map(str, can))}: Keras would clip, accumulate or scale the loss in each replica "
                        "by itself. Leave it out, or use KERAS_BACKEND=jax with jax-data-parallel."
                    )
        if left := share.left_out(data.held_out.total, plan.batch_size):
            notes.append(f"{left} of {data.held_out.total} held-out images are left out: all batches have one shape.")
        if self.name == "tpu" and recipe.precision == "float32":
            notes.append("The precision is float32; on a TPU mixed_bfloat16 is faster and takes half of the memory.")
        return (*self.notes, *notes)

    def told_by_all(self, value: int) -> list[int]:
        """The value that each process calls this with; no process goes on before all have."""
        return told_by_all(self.strategy, value)

    def meet(self, steps: int, folder: Path) -> None:
        """Wait for all processes.

        Raises:
            ValueError: they have not done the same number of steps.
        """
        found = self.told_by_all(steps)
        if len(set(found)) > 1:
            raise ValueError(
                f"The processes find {found} steps done in {str(folder)!r}. Expected the same number. Choose a folder "
                "that all machines share."
            )


def open_devices(name: str) -> Devices:
    """The devices of a strategy's name; before anything else is computed.

    Raises:
        ValueError: no such strategy, or none that can be had here.

    Example:
        >>> open_devices("one").report()
        {'strategy': 'one', 'replicas': 1, 'processes': 1}
    """
    if name != "auto":
        return Devices(name, open_strategy(name))
    chosen, why = choose_strategy()
    return Devices(chosen, open_strategy(chosen), (f"strategy: auto chose {chosen}, since {why}.",))
