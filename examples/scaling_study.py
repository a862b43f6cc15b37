"""Depth, width, resolution or all three: which scaling of a small network works best at equal multiply-adds?

The experiment of the paper's Figure 8 (arXiv:1905.11946, section 5.1) at a size that one CPU core can handle: a folder
of photos, a baseline of 2.1 million multiply-adds, minutes of training. Each of the three seeds holds out a different
third of the photos. Results are saved line by line; repeat the command to resume an interrupted study. For other
photos, use another --out.

command   python examples/scaling_study.py DIR --out examples/results
expected  examples/results/scaling_study.md, for the 700 flowers it names
hardware  34 minutes on one CPU core of a shared machine
needs     pip install ".[tf-cpu,plots]" and photos: one subfolder per class, or train/ and val/
"""

import argparse
import csv
import os
import statistics
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np

from keras_effnet.blocks import BlockArgs
from keras_effnet.complexity import complexity
from keras_effnet.design.photo_arrays import PhotoArrays, load_split
from keras_effnet.design.short_training import ShortTraining, accuracies
from keras_effnet.images import sample
from keras_effnet.scaling import CompoundScaling
from keras_effnet.variants import Variant

BLOCKS = (
    #         repeats  kernel_size  strides  expand_ratio  filters
    BlockArgs(1,       3,           1,       1,            16),
    BlockArgs(5,       3,           2,       3,            24),
    BlockArgs(2,       5,           2,       3,            40),
)  # fmt: skip
BASELINE = Variant("baseline", 1.0, 1.0, 32, 0.2, BLOCKS, stem_filters=16, head_filters=256)
METHODS = ("depth", "width", "resolution", "compound")
PHIS = (1, 2)  # 2 and 4 times the multiply-adds
SEEDS = (0, 1, 2)
TRAINING = ShortTraining(epochs=8)
NAMES = ("repeats", "filters")
TOP1 = tuple(f"top1_seed{seed}" for seed in SEEDS)
COLUMNS = ("method", "phi", "macs", "parameters", *NAMES, "resolution", *TOP1, "seconds")
COLOURS = {"width": "#1b7837", "depth": "#2166ac", "resolution": "#e08214", "compound": "#c2185b"}


def macs(network: Variant) -> int:
    return complexity(network, classes=5).macs


def scaled(method: str, phi: int) -> Variant:
    """The network of a method whose multiply-adds are closest to 2^phi times those of the baseline."""
    target, steps = 2**phi * macs(BASELINE), [1 + i / 100 for i in range(2**phi * 150)]
    if method == "depth":
        family = [replace(BASELINE, depth_coefficient=step) for step in steps]
    elif method == "width":
        family = [replace(BASELINE, width_coefficient=step) for step in steps]
    else:
        # With rounded filters and repeats, compound scaling misses its target; adjust the resolution instead.
        depth, width, _ = CompoundScaling().coefficients(phi) if method == "compound" else (1.0, 1.0, 1.0)
        base = replace(BASELINE, depth_coefficient=depth, width_coefficient=width)
        family = [replace(base, resolution=side) for side in range(32, 256)]
    return min(family, key=lambda network: abs(macs(network) - target))


def plan() -> Iterator[tuple[str, int, Variant]]:
    yield "baseline", 0, BASELINE
    for phi in PHIS:
        for method in METHODS:
            yield method, phi, scaled(method, phi)


def measure(
    networks: Iterable[tuple[str, int, Variant]], photos: PhotoArrays, file: Path, training: ShortTraining
) -> list[dict[str, str]]:
    """Train the networks that are not in the file yet, and append their results."""
    if not file.exists():
        file.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    done = {(row["method"], row["phi"]) for row in read(file)}
    splits = [photos.fold(i, len(SEEDS)) for i in range(len(SEEDS))]
    for method, phi, network in networks:
        if (method, str(phi)) in done:
            continue
        start, cost = time.perf_counter(), complexity(network, classes=len(photos.classes))
        scores = accuracies(network, splits, training, seeds=SEEDS)
        seconds = f"{time.perf_counter() - start:.0f}"
        repeats, filters = ("-".join(str(getattr(row, name)) for row in network.stages) for name in NAMES)
        row = (method, phi, cost.macs, cost.trainable, repeats, filters, network.resolution)
        with file.open("a", encoding="utf-8", newline="") as lines:
            csv.writer(lines, lineterminator="\n").writerow((*row, *(f"{score:.4f}" for score in scores), seconds))
        print(*row, *scores, flush=True)
    return read(file)


def read(file: Path) -> list[dict[str, str]]:
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def summary(rows: list[dict[str, str]]) -> list[dict[str, float | str]]:
    """Each row with the mean and the standard deviation over the seeds, in percent."""
    scores = [[100 * float(row[name]) for name in TOP1] for row in rows]
    return [
        {**row, "mean": statistics.mean(each), "spread": statistics.stdev(each)}
        for row, each in zip(rows, scores, strict=True)
    ]


def table(rows: list[dict[str, str]], photos: PhotoArrays, training: ShortTraining) -> str:
    base, noise = macs(BASELINE), 100 * (0.25 / len(photos.labels)) ** 0.5
    minutes = sum(int(row["seconds"]) for row in rows) / 60
    head = ("scaling", "MACs", "x baseline", "parameters", "repeats", "filters", "side", "top-1", "+-")
    lines = [head, ("---",) * len(head)]
    for row in summary(rows):
        cost, parameters = int(row["macs"]), int(row["parameters"])
        costs = f"{cost / 1e6:.2f}M", f"{cost / base:.2f}", f"{parameters / 1e3:.0f}k"
        shape = row["repeats"], row["filters"], row["resolution"]
        lines.append((row["method"], *costs, *shape, f"{row['mean']:.1f}", f"{row['spread']:.1f}"))
    body = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    return f"""# Scaling a small network: depth, width, resolution, or all three

{len(photos.labels)} photos of {len(photos.classes)} classes ({", ".join(photos.classes)}). Each of {len(SEEDS)} seeds
trains on two thirds of them for {training.epochs} epochs and is scored on the other third. Top-1 in percent: mean and
standard deviation over the seeds.

{body}

Every photo is scored once, so the choice of photos alone gives a mean a standard error of up to {noise:.1f} points:
methods that differ by less than about {2 * noise:.0f} points are not told apart here. So few updates may favour what
learns fast; the paper's networks were trained until they had converged. {minutes:.0f} minutes in all.
"""


def draw(rows: list[dict[str, str]], file: Path) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained", dpi=110)
    FigureCanvasAgg(figure)
    ax, lines = figure.add_subplot(), summary(rows)
    for i, method in enumerate(METHODS):
        points = [line for line in lines if line["method"] in ("baseline", method)]
        # Shifted slightly, so that the error bars do not overlap.
        x = [int(line["macs"]) / 1e6 * (1 + 0.006 * (i - 1.5)) for line in points]
        style = {"color": COLOURS[method], "capsize": 3, "marker": "o", "label": method}
        ax.errorbar(x, [line["mean"] for line in points], [line["spread"] for line in points], **style)
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.xaxis.set_minor_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("multiply-adds, millions")
    ax.set_ylabel("top-1 on held-out photos, %")
    ax.grid(visible=True, color="#dddddd", linewidth=0.6)
    ax.spines[["top", "right"]].set_visible(False)
    ax.legend(loc="upper left", title="bars: standard deviation of 3 seeds")
    figure.savefig(file)


def patches(size: int = 64) -> PhotoArrays:
    """Crops of two photos from scikit-image, for a trial run."""
    names = ("chelsea", "rocket")
    corners = [(y, x) for y in range(0, 192, 32) for x in range(0, 320, 64)]
    pieces = [sample(name)[y : y + size, x : x + size] for name in names for y, x in corners]
    return PhotoArrays(np.stack(pieces), np.repeat([0, 1], len(corners)), names)


def study(data: str, out: Path, *, smoke: bool) -> None:
    photos = patches() if smoke else load_split(data, 96).together()
    networks = [("baseline", 0, BASELINE)] if smoke else plan()
    training = replace(TRAINING, epochs=1, batch_size=8) if smoke else TRAINING
    out.mkdir(parents=True, exist_ok=True)
    rows = measure(networks, photos, out / "scaling_study.csv", training)
    draw(rows, out / "scaling_study.png")
    text = table(rows, photos, training)
    (out / "scaling_study.md").write_text(text, encoding="utf-8")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", metavar="DIR", help="photos: one subfolder per class, or train/ and val/")
    parser.add_argument(
        "--out", type=Path, default=Path("scaling_study"), help="folder for the results, also used to resume"
    )
    parser.add_argument("--smoke", action="store_true", help="only the baseline, crops of two photos, one epoch")
    options = parser.parse_args()
    if not options.data and not options.smoke:
        parser.error("give a folder of photos, or --smoke")

    with tempfile.TemporaryDirectory() as scratch:
        study(options.data, Path(scratch) if options.smoke else options.out, smoke=options.smoke)


if __name__ == "__main__":
    main()
