"""Time of a training step and of the first step: ours, `keras.applications` with the same `fit`, timm in PyTorch.

command   python benchmarks/training_step.py [--model b0] [--size 128] [--batch 16] [--rounds 15] [--only NAME ...]
prints    medians of the wall time per step (processes take turns, and are stopped while another runs) and of the CPU
          time per step, which other load disturbs less; the peak memory; the time from the start of the process to the
          end of the first step; the ratio of each to ours
needs     pip install ".[peers]"; without torch and timm, --only with the names of the others
measured  2026-11, 2 cores, 128 px, 11 rounds, theirs over ours, on two machines (the second with AVX-512):
          keras.applications 1.23 and 1.64 (oneDNN 1.24, 1.34), timm 1.57 and 1.50, timm with channels last 1.08 and
          1.10, in CPU time 1.14 and 1.17; peak memory of keras.applications 1.32 and 1.20, of timm 0.72 and 0.74, with
          channels last 0.68; the first step ended after 14 and 16 s, for keras.applications after 46 and 40 s, for
          timm after 6 to 7 s. In two more runs on the first machine timm with channels last had 1.00 (9 rounds) and
          1.14 (17). 224 px, 3 rounds: 1.79 and 1.86 (oneDNN 1.19, 1.14), timm 1.72 and 1.69, with channels last 1.10
          and 1.13; memory in the same order 1.18 and 1.14, 1.11 and 0.87, 0.88 and 0.87
"""

import argparse
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from peers import import_timm

from keras_effnet.variants import find_variant

# Name -> the kind of network, and the environment of its process.
CONTENDERS: dict[str, tuple[str, dict[str, str]]] = {
    "ours": ("ours", {"TF_ENABLE_ONEDNN_OPTS": "1"}),
    "keras.applications": ("keras.applications", {"TF_ENABLE_ONEDNN_OPTS": "0"}),
    "keras.applications, oneDNN": ("keras.applications", {"TF_ENABLE_ONEDNN_OPTS": "1"}),
    "timm": ("timm", {}),
    "timm, channels last": ("timm, channels last", {}),
}
Step = Callable[[], float]


def batch(size: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The same images and labels for all contenders."""
    images = np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype("float32")
    return images, np.arange(count) % 1000


def in_keras(kind: str, network: str, images: np.ndarray, labels: np.ndarray) -> Iterator[float]:
    """The seconds of each step of one `fit`, which is paused between steps."""
    import threading

    import keras
    import tensorflow as tf

    def compiled(builder: Any, optimizer: Any) -> Any:
        model = builder(weights=None, input_shape=images.shape[1:])
        model.compile(optimizer, keras.losses.CategoricalCrossentropy(), jit_compile=False)
        return model

    name = find_variant(network).builder
    if kind == "ours":
        import keras_effnet

        optimizer = keras_effnet.RMSpropTF1(1e-4, momentum=0.9)
        model = keras_effnet.speed_up(compiled(getattr(keras_effnet, name), optimizer))
    else:
        model = compiled(getattr(keras.applications, name), keras.optimizers.RMSprop(1e-4, momentum=0.9))
    go, done, seconds = threading.Semaphore(0), threading.Semaphore(0), [0.0]

    class Turns(keras.callbacks.Callback):  # type: ignore[misc]
        def on_train_batch_begin(self, number: int, logs: Any = None) -> None:
            go.acquire()
            self.start = time.perf_counter()

        def on_train_batch_end(self, number: int, logs: Any = None) -> None:
            seconds[0] = time.perf_counter() - self.start
            done.release()

    data = tf.data.Dataset.from_tensors((images, np.eye(1000, dtype="float32")[labels])).repeat()
    run = {"steps_per_epoch": 10**9, "callbacks": [Turns()], "verbose": 0, "shuffle": False}
    threading.Thread(target=lambda: model.fit(data, **run), daemon=True).start()
    while True:
        go.release()
        done.acquire()
        yield seconds[0]


def in_torch(kind: str, network: str, images: np.ndarray, labels: np.ndarray) -> Iterator[float]:
    """timm's network in training mode, with timm's RMSprop."""
    timm = import_timm()
    import torch
    from timm.optim import RMSpropTF

    layout = torch.channels_last if kind.endswith("channels last") else torch.contiguous_format
    name = f"tf_efficientnet{network}" if network.startswith("v2-") else f"tf_efficientnet_{network}"
    rates = {"drop_rate": find_variant(network).dropout_rate, "drop_path_rate": 0.2}
    model = timm.create_model(name.replace("-", "_"), **rates).train().to(memory_format=layout)
    optimizer = RMSpropTF(model.parameters(), lr=1e-4, alpha=0.9, eps=1e-3, momentum=0.9)
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    y, loss_of = torch.from_numpy(labels), torch.nn.CrossEntropyLoss()
    while True:
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = loss_of(model(x / 255.0), y)
        loss.backward()
        optimizer.step()
        float(loss)
        yield time.perf_counter() - start


def child(kind: str, network: str, size: int, count: int) -> None:
    """Run one step for each line read from stdin, and print its time and the peak memory."""
    steps = (in_torch if kind.startswith("timm") else in_keras)(kind, network, *batch(size, count))
    for _ in sys.stdin:
        before = time.process_time()
        took = next(steps)
        cpu = {"step": time.process_time() - before, "total": time.process_time()}
        peak = int(re.findall(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[0]) / 1024
        print("\n" + json.dumps({"seconds": took, "megabytes": peak, "cpu": cpu}), flush=True)


class Contender:
    """A separate process, stopped between its turns, since waiting threads may spin and take cores from the others."""

    def __init__(self, name: str, network: str, size: int, count: int) -> None:
        kind, environment = CONTENDERS[name]
        sizes = ["--size", str(size), "--batch", str(count)]
        command = [sys.executable, __file__, "--child", kind, "--model", network, *sizes]
        quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", **environment}
        start = time.perf_counter()
        self.process = subprocess.Popen(  # noqa: S603
            command,
            env={**os.environ, **quiet},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.name, self.times, self.cpu = name, list[float](), list[float]()
        self.first_cpu = self.ask()["cpu"]["total"]
        self.first = time.perf_counter() - start
        self.process.send_signal(signal.SIGSTOP)

    def ask(self) -> dict[str, Any]:
        """Run one step; returns its wall time, its CPU time and the CPU time since the start."""
        if self.process.stdin is None or self.process.stdout is None:
            raise RuntimeError("no pipes")
        print("step", file=self.process.stdin, flush=True)
        for line in self.process.stdout:
            if line.startswith("{"):
                answer = json.loads(line)
                self.megabytes = answer["megabytes"]
                return dict(answer)
        raise SystemExit(f"{self.name} ended early; run it alone: {sys.executable} {__file__} --child '{self.name}'")

    def turn(self, steps: int = 2) -> None:
        """Run some steps after one that refills the caches and is not counted."""
        self.process.send_signal(signal.SIGCONT)
        self.ask()
        for _ in range(steps):
            answer = self.ask()
            self.times.append(answer["seconds"])
            self.cpu.append(answer["cpu"]["step"])
        self.process.send_signal(signal.SIGSTOP)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="b0")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", nargs="*", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    network = find_variant(options.model).name
    if options.child:
        child(options.child, network, options.size, options.batch)
        return
    contenders: list[Contender] = []
    try:
        for name in options.only:
            contenders.append(Contender(name, network, options.size, options.batch))
        for _ in range(options.rounds):
            for contender in contenders:
                contender.turn()
    finally:
        for contender in contenders:
            contender.process.kill()
    show(contenders)


def show(contenders: list[Contender]) -> None:
    columns = ("step, ms", "of cores", "peak, MB", "first step, s", "of cores")
    print(f"{'':28}" + "".join(f"{column:>14}{'ratio':>7}" for column in columns))
    base: list[float] = []
    for row in contenders:
        step, cpu = (1000 * statistics.median(values) for values in (row.times, row.cpu))
        figures = [step, cpu, row.megabytes, row.first, row.first_cpu]
        base = base or figures
        print(f"{row.name:28}" + "".join(f"{a:14.1f}{a / b:7.2f}" for a, b in zip(figures, base, strict=True)))


if __name__ == "__main__":
    main()
