"""Compare a guided search for a baseline with random draws, at an equal number of trained networks.

The method of the paper's section 4 (arXiv:1905.11946) at a size that one CPU core can handle: MnasNet's choices for
three stages, a folder of photos at 32 pixels, and at most a minute of training per network. The best network of each
search is then trained again on the other thirds of the photos, because the best of many noisy scores is biased upwards.
Both searches are saved in a file; repeat the command to resume them.

command   python examples/search_study.py DIR --out examples/results
expected  examples/results/search_study.md, for the 700 flowers it names, except for the entropy, which the package no
          longer computes
hardware  8 minutes of training for the 37 different networks, on one CPU core of a shared machine
needs     pip install ".[tf-cpu,plots,search]" and photos: one subfolder per class, or train/ and val/
"""

import argparse
import csv
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from math import comb
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import optuna

from keras_effnet.blocks import encode_blocks
from keras_effnet.design.mnas import Goal, SearchSpace, StageSpace
from keras_effnet.design.photo_arrays import PhotoArrays, load_split
from keras_effnet.design.search import Candidate, Score, Search, search
from keras_effnet.design.short_training import ShortTraining, accuracies, accuracy
from keras_effnet.variants import Variant

BASE = Variant("searched", 1.0, 1.0, 32, 0.2, stem_filters=16, head_filters=256)
SPACE = SearchSpace(
    BASE,
    (
        #          strides  filters           repeats
        StageSpace(1,       range(8, 25, 8),  range(1, 3)),
        StageSpace(2,       range(16, 33, 8), range(1, 3)),
        StageSpace(2,       range(24, 57, 8), range(1, 3)),
    ),
)  # fmt: skip
GOAL = Goal(target_macs=1.5e6, classes=5)
SAMPLERS = ("random", "tpe")
COLOURS = {"random": "#555555", "tpe": "#c2185b"}
TRIALS, FOLDS = 20, 3
TRAINING = ShortTraining(epochs=5)


def run(score: Score, out: Path, trials: int) -> dict[str, Search]:
    storage, found = f"sqlite:///{out}/search_study.db", {}
    for sampler in SAMPLERS:
        found[sampler] = search(score, SPACE, GOAL, trials=trials, sampler=sampler, storage=storage, study_name=sampler)
    return found


def expected_best(rewards: list[float]) -> list[float]:
    """The expected best of the first k draws, averaged over all orders of the draws."""
    ranked, count = sorted(rewards), len(rewards)
    return [sum(comb(i, k - 1) * value for i, value in enumerate(ranked)) / comb(count, k) for k in range(1, count + 1)]


def best_so_far(rewards: list[float]) -> list[float]:
    return [max(rewards[: k + 1]) for k in range(len(rewards))]


def line(name: str, best: Candidate, repeated: list[float]) -> str:
    mean, each = 100 * sum(repeated) / len(repeated), ", ".join(f"{100 * score:.1f}" for score in repeated)
    blocks = "<br>".join(encode_blocks(best.network.stages, BASE.stem))
    cells = f"{best.macs / 1e6:.2f}M", f"{best.reward:.4f}", f"{100 * best.score:.1f}", f"{mean:.1f} ({each})", blocks
    return f"| {name} | {' | '.join(cells)} |"


def report(found: dict[str, Search], photos: PhotoArrays, repeat: Callable[[Variant], list[float]]) -> str:
    random = expected_best([each.reward for each in found["random"].candidates])
    tpe = best_so_far([each.reward for each in found["tpe"].candidates])
    marks = [k for k in range(1, len(tpe) + 1) if k in (1, len(tpe)) or k % 5 == 0]
    noise = 100 * (0.25 * FOLDS / (len(photos.labels) * (FOLDS - 1))) ** 0.5
    best = "\n".join(line(name, found[name].best, repeat(found[name].best.network)) for name in SAMPLERS)
    return f"""# A search for a baseline network against random draws

{len(tpe)} networks each, of a space of {SPACE.size:,} points, near {GOAL.target_macs / 1e6:g} million multiply-adds;
{len(photos.labels)} photos of {len(photos.classes)} classes at {BASE.resolution} pixels, {TRAINING.epochs} epochs.
Infeasible draws, never trained: {found["random"].infeasible} (random), {found["tpe"].infeasible} (TPE).

| best reward after | {" | ".join(f"{k}" for k in marks)} |
| --- |{" --- |" * len(marks)}
| random draws, mean over their orders | {" | ".join(f"{random[k - 1]:.4f}" for k in marks)} |
| TPE, one run | {" | ".join(f"{tpe[k - 1]:.4f}" for k in marks)} |

| best of | MACs | reward | top-1 | again, on photos the search did not score on | blocks |
| --- | --- | --- | --- | --- | --- |
{best}

The standard error of the top-1 of the last but one column is up to {noise:.1f} points.
"""


def write_csv(found: dict[str, Search], file: Path) -> None:
    with file.open("w", encoding="utf-8", newline="") as lines:
        writer = csv.writer(lines, lineterminator="\n")
        writer.writerow(("sampler", "trial", "macs", "top1", "reward", "blocks"))
        for sampler in SAMPLERS:
            for i, each in enumerate(found[sampler].candidates, start=1):
                blocks = " ".join(encode_blocks(each.network.stages, BASE.stem))
                scores = f"{each.score:.4f}", f"{each.reward:.4f}"
                writer.writerow((sampler, i, each.macs, *scores, blocks))


def draw(found: dict[str, Search], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    ax = figure.add_subplot()
    for sampler, curve, label in (
        ("random", expected_best, "random draws, mean over their orders"),
        ("tpe", best_so_far, "TPE, one run"),
    ):
        rewards = [each.reward for each in found[sampler].candidates]
        ax.plot(range(1, len(rewards) + 1), curve(rewards), color=COLOURS[sampler], label=label)
        ax.plot(range(1, len(rewards) + 1), rewards, "o", color=COLOURS[sampler], markersize=3, alpha=0.6)
    ax.set_xticks(range(0, len(found["tpe"].candidates) + 1, 5))
    ax.set_xlabel("networks trained")
    ax.set_ylabel("reward; lines: the best so far")
    ax.grid(visible=True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1), ncols=2, frameon=False)
    figure.savefig(file)


def study(data: str, out: Path) -> str:
    photos = load_split(data, BASE.resolution).together()
    splits = [photos.fold(i, FOLDS) for i in range(FOLDS)]

    @cache
    def score(network: Variant) -> float:
        start, result = time.perf_counter(), accuracy(network, splits[0], TRAINING)
        print(
            f"{result:.3f} {time.perf_counter() - start:.0f} s", *encode_blocks(network.stages, BASE.stem), flush=True
        )
        return result

    def repeat(network: Variant) -> list[float]:
        return accuracies(network, splits[1:], TRAINING, seeds=range(1, FOLDS))

    out.mkdir(parents=True, exist_ok=True)
    found = run(score, out, TRIALS)
    write_csv(found, out / "search_study.csv")
    draw(found, out / "search_study.png")
    text = report(found, photos, repeat)
    (out / "search_study.md").write_text(text, encoding="utf-8")
    return text


def stand_in(network: Variant) -> float:
    """A score without training, for --smoke: it grows with filters and blocks, and means nothing else."""
    return sum(row.filters * row.repeats for row in network.blocks) / 1000


def smoke() -> str:
    """Run everything except the training, with `stand_in` instead of the accuracy."""
    photos = PhotoArrays(np.zeros((6, 32, 32, 3), "uint8"), np.arange(6) // 3, ("a", "b"))
    with tempfile.TemporaryDirectory() as scratch:
        found = run(stand_in, Path(scratch), 3)
        write_csv(found, Path(scratch, "search_study.csv"))
        draw(found, Path(scratch, "search_study.png"))
    return report(found, photos, lambda network: [stand_in(network)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", metavar="DIR", help="photos: one subfolder per class, or train/ and val/")
    parser.add_argument(
        "--out", type=Path, default=Path("search_study"), help="folder for the results, also used to resume"
    )
    parser.add_argument("--smoke", action="store_true", help="six networks, without training")
    options = parser.parse_args()
    if not options.data and not options.smoke:
        parser.error("give a folder of photos, or --smoke")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    print(smoke() if options.smoke else study(options.data, options.out))


if __name__ == "__main__":
    main()
