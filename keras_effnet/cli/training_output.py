"""What `finetune` and `train` show: their progress, and the result."""

import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A bar for each part of a run on a terminal, with loss and accuracy; elsewhere one line per epoch.

    Args:
        parts: the titles of the parts by their names.
        epochs: the number of epochs, if it is known before training starts.
        stderr: the console for the bars or lines.
        bars: on this console; by default those of a training.
    """

    def __init__(
        self, parts: Mapping[str, str], stderr: Console, *, epochs: int = 0, bars: Progress | None = None
    ) -> None:
        self.bars, self._titles, self._epochs = bars or _bars(stderr), parts, epochs
        self._rows = {
            name: self.bars.add_task(title, visible=False, start=False, figures="") for name, title in parts.items()
        }
        self._part, self._steps, self._logs = "", 0, dict[str, float]()

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.bars.stop()

    def show(self, part: str, done: int, total: int) -> None:
        """Show that a part of the run has finished so many of its steps."""
        self._part = part
        self.bars.start_task(self._rows[part])
        self.bars.update(self._rows[part], completed=done, total=total, visible=True)

    def callback(self, part: str = "") -> Any:
        """A Keras callback that shows loss and accuracy.

        Args:
            part: the part that `fit` trains, if nothing else calls `show` for it.
        """
        from keras_effnet._keras import keras

        start, epoch = 0.0, 0

        def begin(number: int, logs: Any = None) -> None:
            nonlocal start, epoch
            start, epoch = time.perf_counter(), number
            if number == 0:
                self._logs = {}
            self._steps = max(self._steps, callback.params["steps"])
            self._epochs = max(self._epochs, callback.params["epochs"]) if part else callback.params["epochs"]

        def batch(number: int, logs: Any = None) -> None:
            self._logs |= {name: float(value) for name, value in (logs or {}).items()}
            if part:
                done = epoch * self._steps + self._steps - callback.params["steps"] + number + 1
                self.show(part, done, self._epochs * self._steps)
                title = f"{self._titles[part]} {epoch + 1}/{self._epochs}"
                self.bars.update(self._rows[part], description=title)
            self.bars.update(self._rows[self._part], figures=_figures(self._logs))

        def end(number: int, logs: Any = None) -> None:
            self._logs |= {name: float(value) for name, value in (logs or {}).items()}
            self.bars.update(self._rows[self._part], figures=_figures(self._logs))
            if not self.bars.console.is_terminal:
                seconds = time.perf_counter() - start
                title = f"{self._titles[self._part]}, epoch {number + 1}/{self._epochs}"
                self.bars.console.print(f"{title}: {_long_figures(self._logs)}, {seconds:.0f} s", soft_wrap=True)

        callback = keras.callbacks.LambdaCallback(on_epoch_begin=begin, on_epoch_end=end, on_train_batch_end=batch)
        return callback


def _bars(stderr: Console) -> Progress:
    columns = (
        *(TextColumn("{task.description:18}"), BarColumn(bar_width=16), MofNCompleteColumn()),
        *(TimeRemainingColumn(), TextColumn("{task.fields[figures]}")),
    )
    # Speed is averaged over minutes, since compiling and validation between epochs are part of it.
    return Progress(*columns, console=stderr, disable=not stderr.is_terminal, speed_estimate_period=300)


def _figures(logs: Mapping[str, float]) -> str:
    """Loss and accuracy so far, and the accuracy on the held-out photos after the last epoch."""
    texts = {"loss": "loss {:.2f}", "accuracy": "acc. {:.1%}", "val_accuracy": "val. {:.1%}"}
    return " ".join(text.format(logs[name]) for name, text in texts.items() if name in logs)


def _long_figures(logs: Mapping[str, float]) -> str:
    texts = {
        "loss": "loss {:.4f}",
        "accuracy": "accuracy {:.1%}",
        "val_loss": "validation loss {:.4f}",
        "val_accuracy": "validation accuracy {:.1%}",
    }
    return ", ".join(text.format(logs[name]) for name, text in texts.items() if name in logs)


def result_lines(folder: Path, accuracy: str, trained: str) -> tuple[str, ...]:
    """How good the model is, what it was trained on, which files were written, and how to use them."""
    names = ", ".join(sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")))
    return (
        f"Validation accuracy: {accuracy}.",
        f"{trained}.",
        f"Written to {folder}: {names}.",
        f"To classify photos with it: keras-effnet classify --model {shlex.quote(str(folder))} PHOTO",
    )
