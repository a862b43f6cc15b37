"""`keras-effnet search`: look for a baseline network of about so many multiply-adds, for photos of one's own."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from typing import Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_effnet.blocks import encode_blocks
from keras_effnet.cli.terminal import AsJson, console, millions, plain_errors, plain_table, start_keras
from keras_effnet.complexity import complexity
from keras_effnet.design.mnas import Goal, mnas_space
from keras_effnet.design.search import Candidate, Search
from keras_effnet.design.search import search as run_search
from keras_effnet.variants import VARIANTS, Variant

UNITS = {"K": 1e3, "M": 1e6, "B": 1e9, "G": 1e9}
SHOWN = 5

Target = Annotated[str, typer.Option(metavar="NUMBER", help="Multiply-adds of the network wanted: 400M, 1.5B, 4e8.")]
Data = Annotated[
    str,
    typer.Option(
        metavar="DIR | CSV | tfds:NAME",
        help="Photos to train on and to score on: a folder for each class, or train/ and val/ with these.",
    ),
]
Trials = Annotated[int, typer.Option(min=1, help="Networks scored in all, those of a search gone on with included.")]
Size = Annotated[int, typer.Option(min=32, help="Side of the images in pixels.")]
Tolerance = Annotated[
    float, typer.Option(metavar="SHARE", help="How far from the target a network may lie; others are never trained.")
]
Epochs = Annotated[int, typer.Option(min=1, help="Passes over the photos.")]
Sampler = Annotated[str, typer.Option(metavar="tpe|random", help="What draws the networks.")]
Seed = Annotated[int, typer.Option(help="Of the sampler and of training.")]
Storage = Annotated[
    str | None,
    typer.Option(
        metavar="URL",
        help="Keep the search here, or go on with it (with the same data and epochs): sqlite:///search.db.",
    ),
]
Name = Annotated[str, typer.Option(help="Name of the search in --storage.")]


def search(
    data: Data,
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
    """Search MnasNet's space for the best network near a number of multiply-adds; prints its block table."""
    target = _count(target_macs)
    with plain_errors():
        score, classes = _training(data, {"epochs": epochs, "seed": seed}, size)
        space, goal = mnas_space(replace(VARIANTS["b0"], resolution=size)), Goal(target, tolerance, classes=classes)
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
            f"{text!r} is no number. Expected one such as 400M, 1.5B or 4e8. Correct it.", param_hint="--target-macs"
        ) from None


def _training(data: str, training: dict[str, int], size: int) -> tuple[Callable[[Variant], float], int]:
    """What scores a network by short training, and the number of classes."""
    start_keras()
    from keras_effnet.design.photo_arrays import load_split
    from keras_effnet.design.short_training import ShortTraining, accuracy

    with console(stderr=True).status("Reading the photos ..."):
        split = load_split(data, size)
    return lambda network: accuracy(network, split, ShortTraining(**training)), len(split.training.classes)


@contextmanager
def _bar(total: int) -> Iterator[Callable[[Search], None]]:
    """On a terminal a bar with the best reward so far and the time that is left; and no log of Optuna's."""
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
    console().print(view)
    console().print(f"\n{len(ranked):,} networks scored, {found.infeasible:,} infeasible. The best:")
    print("\n".join(_figures(ranked[0], goal)["blocks"]))


def _summary(found: Search, goal: Goal) -> dict[str, Any]:
    candidates = [_figures(each, goal) for each in found.candidates]
    return {"goal": asdict(goal), "infeasible": found.infeasible, "best": _figures(found.best, goal), "all": candidates}


def _figures(each: Candidate, goal: Goal) -> dict[str, Any]:
    parameters = complexity(each.network, classes=goal.classes).trainable
    blocks = encode_blocks(each.network.stages, each.network.stem)
    return {"reward": each.reward, "score": each.score, "macs": each.macs, "parameters": parameters, "blocks": blocks}
