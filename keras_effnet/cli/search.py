"""`keras-effnet search`: find a baseline network with a given number of multiply-adds for your own photos."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_effnet.blocks import encode_blocks
from keras_effnet.cli.argument_checks import find_training_photos, merge_data, naming
from keras_effnet.cli.help_page import at_least
from keras_effnet.cli.terminal import AsJson, console, millions, plain_errors, plain_table, print_table, start_keras
from keras_effnet.complexity import complexity
from keras_effnet.design.mnas import Goal, mnas_space
from keras_effnet.design.search import Candidate, Search, check_arguments
from keras_effnet.design.search import search as run_search
from keras_effnet.variants import VARIANTS, Variant

UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
SHOWN = 5

Target = Annotated[
    str, typer.Option(metavar="NUMBER", help="Multiply-adds of the network, for example 400M, 1.5B or 4e8.")
]
Data = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="DATA",
        help="Photos to train and score on: folder with one subfolder per class (or with train/ and val/ that contain "
        "these), CSV file with the columns path, label and optionally split, or tfds:NAME for TensorFlow Datasets.",
    ),
]
DataOption = Annotated[list[str] | None, typer.Option("--data", metavar="DATA", help="Another way to give DATA.")]
Trials = Annotated[
    int,
    typer.Option(
        metavar="N", callback=at_least(1), help="Total number of networks to score, including those in --storage."
    ),
]
Size = Annotated[
    int, typer.Option("--size", "--resolution", metavar="PIXELS", callback=at_least(32), help="Side of the images.")
]
Tolerance = Annotated[
    float,
    typer.Option(
        metavar="SHARE", help="Allowed relative distance from the target; networks outside it are not trained."
    ),
]
Epochs = Annotated[int, typer.Option(metavar="N", callback=at_least(1), help="Epochs to train each network.")]
Sampler = Annotated[str, typer.Option(metavar="NAME", help="How to choose networks: tpe or random.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Random seed of the sampler and of training.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Save the search here, for example sqlite:///search.db, or resume it with the same data and epochs.",
    ),
]
Name = Annotated[str, typer.Option(metavar="NAME", help="Name of the search in --storage.")]


def search(
    data: Data = None,
    data_option: DataOption = None,
    target_macs: Target = "400M",
    trials: Trials = 100,
    size: Size = 224,
    tolerance: Tolerance = 0.25,
    epochs: Epochs = 5,
    sampler: Sampler = "tpe",
    seed: Seed = 0,
    storage: Storage = None,
    name: Name = "search",
    as_json: AsJson = False,
) -> None:
    """Search MnasNet's space for the best network with a given number of multiply-adds, and print its block table."""
    target, (names, given_as) = _count(target_macs), merge_data(data, data_option)
    if len(names) > 1:
        raise typer.BadParameter("give one folder, CSV file or tfds:NAME.", param_hint="DATA")
    with plain_errors(resume="Repeat the same command to resume." if storage else ""):
        check_arguments(trials=trials, sampler=sampler, seed=seed, storage=storage)
        goal, space = Goal(target, tolerance), mnas_space(replace(VARIANTS["b0"], resolution=size))
        score, classes = _training(names[0], given_as, {"epochs": epochs, "seed": seed}, size)
        goal = replace(goal, classes=classes)
        keep: dict[str, Any] = {"storage": storage, "study_name": name}
        with _bar(trials) as show:
            found = run_search(score, space, goal, trials=trials, sampler=sampler, seed=seed, progress=show, **keep)
        if as_json:
            print(json.dumps(_summary(found, goal), indent=2))
        else:
            _print(found, goal)


def _count(text: str) -> float:
    number, unit = (text[:-1], UNITS[text[-1].upper()]) if text[-1:].upper() in UNITS else (text, 1.0)
    try:
        return float(number) * unit
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not a number. Expected for example 400M, 1.5B or 4e8.", param_hint="--target-macs"
        ) from None


def _training(data: str, given_as: str, training: dict[str, int], size: int) -> tuple[Callable[[Variant], float], int]:
    """A function that scores a network by a short training run, and the number of classes."""
    with naming(given_as):
        found = find_training_photos(data)
    # Makes training at least 1.3 times faster; TensorFlow reads it once, at import.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
    start_keras()
    from keras_effnet.design.photo_arrays import load_split
    from keras_effnet.design.short_training import ShortTraining, accuracy

    with console(stderr=True).status("Reading the photos ..."):
        split = load_split(found, size)
    return lambda network: accuracy(network, split, ShortTraining(**training)), len(split.training.classes)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Search], None]]:
    """On a terminal, a progress bar with the best reward so far and the remaining time; Optuna's log is hidden."""
    with suppress(ImportError):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
    terminal = console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=terminal, transient=True, disable=not terminal.is_terminal) as bar:
        task = bar.add_task("Searching", total=total)

        def show(found: Search) -> None:
            description = f"reward {found.best.reward:.4g}  infeasible {found.infeasible:,}"
            bar.update(task, completed=len(found.candidates), description=description)

        yield show


def _print(found: Search, goal: Goal) -> None:
    view = plain_table("reward", "score", "multiply-adds", "parameters")
    ranked = sorted(found.candidates, key=lambda each: each.reward, reverse=True)
    for each in ranked[:SHOWN]:
        row = _figures(each, goal)
        macs, parameters = millions(row["macs"]), millions(row["parameters"])
        view.add_row(f"{each.reward:.4g}", f"{each.score:.4g}", macs, parameters)
    print_table(view)
    console().print(f"\n{len(ranked):,} networks scored, {found.infeasible:,} infeasible. The best:")
    print("\n".join(_figures(ranked[0], goal)["blocks"]))


def _summary(found: Search, goal: Goal) -> dict[str, Any]:
    candidates = [_figures(each, goal) for each in found.candidates]
    return {"goal": asdict(goal), "infeasible": found.infeasible, "best": _figures(found.best, goal), "all": candidates}


def _figures(each: Candidate, goal: Goal) -> dict[str, Any]:
    parameters = complexity(each.network, classes=goal.classes).trainable
    blocks = encode_blocks(each.network.stages, each.network.stem)
    return {"reward": each.reward, "score": each.score, "macs": each.macs, "parameters": parameters, "blocks": blocks}
