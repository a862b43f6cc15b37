"""What a forked process may not inherit: the threads, queues and interpreters of its parent, and a running backend."""

import ctypes
import os
import sys
from collections.abc import Callable
from typing import Any, Generic, TypeVar
from weakref import WeakSet

T = TypeVar("T")


class PerProcess(Generic[T]):
    """A value that belongs to the process that made it; a forked child makes its own when it first needs it.

    Args:
        make: makes the value; called once now, and once in every forked child that needs it.

    Example:
        >>> PerProcess(lambda: [1, 2])()
        [1, 2]
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made = [make()]
        _VALUES.add(self)

    def __call__(self) -> T:
        """The value of this process."""
        if not self._made:
            # If two threads make one at the same time, both use the first.
            self._made.append(self._make())
        return self._made[0]

    def forget(self) -> None:
        """Forget the value of the parent process, in a forked child."""
        # It must never be deleted here: its destructor would wait for threads that exist only in the parent.
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._made))
        self._made = []


class _Backend:
    """Whether this process was forked from one in which TensorFlow or JAX was running."""

    lost = ""

    def look(self) -> None:
        self.lost = self.lost or _running()


_VALUES: WeakSet[PerProcess[Any]] = WeakSet()
_BACKEND = _Backend()


def check_fork() -> None:
    """Refuse to start work that would wait forever for threads of the parent process.

    Raises:
        RuntimeError: this process was forked from one in which TensorFlow or JAX had already run.
    """
    if _BACKEND.lost:
        raise RuntimeError(
            f"This process was forked after {_BACKEND.lost} had run in its parent, and {_BACKEND.lost} does not work "
            "after a fork. Expected a process of its own: use multiprocessing.get_context('spawn'), or load the model "
            "only in the child. A Predictor with LiteRT, ONNX Runtime or OpenVINO works after a fork."
        )


def _running() -> str:
    """The backend that has started its threads, "" if none has. Nothing is imported."""
    context = getattr(sys.modules.get("tensorflow.python.eager.context"), "_context", None)
    if getattr(context, "_context_handle", None) is not None:
        return "TensorFlow"
    bridge = sys.modules.get("jax._src.xla_bridge")
    return "JAX" if getattr(bridge, "_backends", None) else ""


def _after_fork() -> None:
    for value in list(_VALUES):
        value.forget()
    _BACKEND.look()
    if "onnxruntime" in sys.modules:
        _exit_without_destructors()


def _exit_without_destructors() -> None:
    """End this process right after Python has finished: C++ destructors are left out, and the exit status is kept.

    Once ONNX Runtime 1.32 is imported, its destructor waits for a thread that a forked child does not have, so that
    `sys.exit()` never returns. `on_exit` exists only in glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "on_exit"):
        libc.on_exit(libc._exit, None)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
