"""`keras-effnet summary` and `keras-effnet models`: sizes and costs by arithmetic, without Keras."""

import json
from dataclasses import asdict
from typing import Annotated, Any

import typer

from keras_effnet.cli.terminal import AsJson, millions, plain_errors, plain_table, print_table
from keras_effnet.complexity import complexity, table
from keras_effnet.variants import VARIANTS, Variant, find_variant
from keras_effnet.weights.registry import WEIGHTS

Network = Annotated[str, typer.Argument(metavar="MODEL", help="Network name, for example b0, lite0 or EfficientNetB7.")]


def summary(model: Network, as_json: AsJson = False) -> None:
    """Print the stages, parameters, multiply-adds and memory of a network."""
    with plain_errors():
        variant = find_variant(model)
        total, stages = complexity(variant), table(variant)
        if as_json:
            rows = [{"stage": i, **asdict(stage)} for i, stage in enumerate(stages, 1)]
            head = {"name": variant.name, "resolution": variant.resolution}
            print(json.dumps({**head, **asdict(total), "stages": rows}, indent=2))
            return
        view = plain_table(
            "stage", "operator", "resolution", "channels", "layers", "parameters", "MACs", left=("operator",)
        )
        for i, stage in enumerate(stages, 1):
            size, costs = f"{stage.resolution} x {stage.resolution}", (f"{stage.parameters:,}", millions(stage.macs))
            view.add_row(str(i), stage.operator, size, str(stage.channels), str(stage.layers), *costs)
        print_table(view)
        print(
            f"\n{variant.builder}, {variant.resolution} x {variant.resolution} pixels\n"
            f"parameters  {total.parameters:,}, {total.trainable:,} of them trainable\n"
            f"MACs        {millions(total.macs)} per image (the paper calls them FLOPS)\n"
            f"memory      {total.weight_bytes / 1e6:,.1f} MB of weights and at least {total.peak_bytes / 1e6:,.1f} MB "
            "of activations, float32"
        )


def models(as_json: AsJson = False) -> None:
    """List the networks with their size, cost and published weight sets."""
    with plain_errors():
        if as_json:
            print(json.dumps([_entry(variant) for variant in VARIANTS.values()], indent=2))
            return
        view = plain_table("model", "resolution", "parameters", "MACs", "weights", left=("model", "weights"))
        for variant in VARIANTS.values():
            row = _entry(variant)
            costs = millions(row["parameters"]), millions(row["macs"])
            view.add_row(variant.name, str(variant.resolution), *costs, ", ".join(row["weights"]))
        print_table(view)


def _entry(variant: Variant) -> dict[str, Any]:
    total, sets = complexity(variant), [name for key, name in WEIGHTS if key == variant.name]
    costs = {"parameters": total.parameters, "macs": total.macs}
    return {"name": variant.name, "resolution": variant.resolution, **costs, "weights": sets}
