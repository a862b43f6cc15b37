"""Equation 2: the largest network of a family within a budget of multiply-adds, parameters, memory or seconds.

The source is arXiv:1905.11946, section 3.1; the family is a baseline scaled by Equation 3.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from keras_effnet.blocks import BlockArgs
from keras_effnet.complexity import FLOAT32_BYTES, Complexity, complexity
from keras_effnet.scaling import Coefficients, CompoundScaling
from keras_effnet.variants import VARIANTS, Variant

Build = Callable[[float, float, float], Any]
Family = Variant | Sequence[BlockArgs] | Build

# Equation 3 has doubled the cost so often by then that whatever still fits does not grow at all.
MAX_PHI = 64
LIMITS = {"macs": "multiply-adds", "params": "parameters", "memory": "bytes", "latency": "seconds"}


@dataclass(frozen=True)
class Fit:
    """The largest network within a budget.

    Args:
        phi: how far the baseline is scaled.
        coefficients: depth, width and resolution coefficients at phi.
        network: a `Variant`, or what the user's `build` returned.
        costs: what the network costs, by the names of the budgets: macs, params, memory in bytes, latency in seconds.
    """

    phi: float
    coefficients: Coefficients
    network: Any
    costs: Mapping[str, float]


def fit_budget(
    family: Family = VARIANTS["b0"],
    *,
    max_macs: float | None = None,
    max_params: float | None = None,
    max_latency: float | None = None,
    max_memory: float | None = None,
    scaling: CompoundScaling | None = None,
    measure: Callable[[Any], float] | None = None,
    precision: float = 0.01,
) -> Fit:
    """Find the largest phi whose network keeps every limit, by bisection; nothing is built unless seconds are limited.

    Args:
        family: a `Variant`; a block table, which gets the stem, head and resolution of B0; or a function
            `build(depth, width, resolution)` of coefficients that returns a Keras model, a `Complexity`, or a mapping
            with some of macs, params, memory and latency. What it costs must not fall as the coefficients grow.
        max_macs: multiply-adds for one image.
        max_params: all weights, as `model.count_params()` gives them.
        max_latency: seconds for one image.
        max_memory: bytes of the weights and of the largest layer's input and output, in float32.
        scaling: the law; the paper's by default.
        measure: `measure(network)` gives the seconds; by default the network is built with random weights, and the mean
            of 20 runs with a batch of one on this machine is taken. Networks near the limit are as good as it is quiet.
        precision: step of phi. With `max_latency` alone a coarser one, 0.1, saves networks that are built.

    Raises:
        ValueError: no limit, a limit that even the baseline breaks or that no phi reaches, or costs that are unknown.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> fit_budget(VARIANTS["b0"], max_macs=1e9).network.resolution
        256
    """
    limits = {"macs": max_macs, "params": max_params, "memory": max_memory, "latency": max_latency}
    wanted = _wanted(limits, precision)
    law = scaling or CompoundScaling()

    @cache
    def candidate(step: int) -> tuple[Fit, dict[str, float]]:
        phi = step * precision
        network = _network(family, law, phi)
        costs = _costs(network, wanted)
        # The clock is asked last: what arithmetic rules out need not be built.
        if "latency" in wanted and "latency" not in costs and not _broken(costs, wanted):
            costs["latency"] = float((measure or _measure)(network))
        return Fit(phi, law.coefficients(phi), network, costs), _broken(costs, wanted)

    _, too_much = candidate(0)
    if too_much:
        raise _none_fits(too_much, wanted)
    return candidate(_last(lambda step: not candidate(step)[1], math.ceil(1 / precision), MAX_PHI / precision))[0]


def _wanted(limits: Mapping[str, float | None], precision: float) -> dict[str, float]:
    """The limits that are set."""
    wanted = {name: limit for name, limit in limits.items() if limit is not None}
    if not wanted or not all(limit > 0 for limit in wanted.values()) or not precision > 0:
        raise ValueError(
            f"The budget is {wanted} with precision {precision!r}. Expected at least one of max_macs, max_params, "
            "max_latency and max_memory, all positive. Pass for example max_macs=1e9."
        )
    return wanted


def _none_fits(too_much: Mapping[str, float], wanted: Mapping[str, float]) -> ValueError:
    needs = ", ".join(f"{cost:,.6g} {LIMITS[name]} (max_{name}={wanted[name]:,.6g})" for name, cost in too_much.items())
    return ValueError(
        f"Nothing of the family fits the budget: the baseline itself takes {needs}. Expected limits of at least "
        "that. Raise them, or start from a smaller baseline: a lower resolution, fewer filters, fewer repeats."
    )


def _last(fits: Callable[[int], bool], first: int, most: float) -> int:
    """The last step that fits, where 0 does and what follows one that does not does not either."""
    low, high = 0, first
    while fits(high):
        low, high = high, 2 * high
        if high > most:
            raise ValueError(
                f"The costs still fit the budget at phi = {MAX_PHI}. Expected costs that grow with depth, width and "
                "resolution. Let build use its coefficients, or limit a cost that they change."
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _network(family: Family, law: CompoundScaling, phi: float) -> Any:
    if isinstance(family, Variant):
        return law.variant(family, phi) if phi else family
    if callable(family):
        return law.scale(family, phi)
    return law.variant(replace(VARIANTS["b0"], name="custom", blocks=tuple(family)), phi)


def _broken(costs: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    return {name: costs[name] for name, limit in limits.items() if name in costs and not costs[name] <= limit}


def _costs(network: Any, wanted: Mapping[str, float]) -> dict[str, float]:
    """What is known of a network without running it."""
    if isinstance(network, Mapping):
        costs = {name: float(network[name]) for name in LIMITS if name in network}
    else:
        cost = network if isinstance(network, Complexity) else _complexity(network)
        memory = cost.weight_bytes + cost.peak_bytes
        costs = {"macs": cost.macs, "params": cost.parameters, "memory": memory}
    missing = [name for name in wanted if name not in costs and name != "latency"]
    if missing:
        raise ValueError(
            f"build returned a mapping without {', '.join(missing)}. Expected what the budget limits: "
            f"{', '.join(sorted(wanted))}. Add it to the mapping, or return a model."
        )
    return costs


def _complexity(network: Any) -> Complexity:
    if isinstance(network, Variant):
        return complexity(network)
    if not hasattr(network, "count_params"):
        raise ValueError(
            f"build returned {type(network).__name__}. Expected a Keras model, a Complexity, or a mapping with some of "
            f"{', '.join(sorted(LIMITS))}. Return one of these."
        )
    return model_complexity(network)


def model_complexity(model: Any) -> Complexity:
    """Count a built Keras model of convolutions and dense layers as `complexity` counts a table.

    Args:
        model: a functional model with fixed input sizes; a layer of another kind adds its parameters alone.
    """
    macs = activations = peak = 0
    for layer in model.layers:
        # tf_keras calls the kernel of a depthwise convolution by another name.
        weights = getattr(layer, "kernel", getattr(layer, "depthwise_kernel", None))
        if weights is None:
            continue
        taken, given = _elements(layer.input), _elements(layer.output)
        kernel = math.prod(weights.shape)
        # One multiply-add for each weight at each place; the last axis of a kernel is not a place.
        channels = layer.output.shape[1 if getattr(layer, "data_format", "") == "channels_first" else -1]
        macs += kernel * given // channels
        activations += given
        peak = max(peak, taken + given)
    parameters = model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    weight_bytes, peak_bytes = parameters * FLOAT32_BYTES, peak * FLOAT32_BYTES
    return Complexity(parameters, trainable, macs, activations, weight_bytes, peak_bytes)


def _elements(tensor: Any) -> int:
    if None in tensor.shape[1:]:
        raise ValueError(
            f"The model has a tensor of shape {tuple(tensor.shape)}. Expected known sizes, since the cost depends on "
            "them. Build it with a fixed input shape."
        )
    return math.prod(tensor.shape[1:])


def _measure(network: Any) -> float:
    from keras_effnet.design.latency import latency
    from keras_effnet.models import create

    if isinstance(network, (Complexity, Mapping)):
        raise ValueError(
            f"max_latency came with a build that returns {type(network).__name__}. Expected a model that can be run. "
            "Pass measure=, return a model, or add latency to a mapping."
        )
    return latency(create(network) if isinstance(network, Variant) else network)
