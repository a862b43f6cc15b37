"""Equation 2: the largest network within a budget of multiply-adds, parameters, memory or latency.

Source: arXiv:1905.11946, section 3.1. The candidates are a baseline scaled by Equation 3.
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

# The cost has doubled 64 times by then: if the network still fits, its cost does not grow.
MAX_PHI = 64
LIMITS = {"macs": "multiply-adds", "params": "parameters", "memory": "bytes", "latency": "seconds"}


@dataclass(frozen=True)
class Fit:
    """The largest network within a budget.

    Args:
        phi: scaling exponent of Equation 3.
        coefficients: depth, width and resolution coefficients at phi.
        network: a `Variant`, or the result of the user's `build`.
        costs: the costs that are known: macs, params, memory in bytes, latency in seconds.
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
    """Find the largest phi whose network is within all limits, by bisection.

    Networks are only built if the latency is limited.

    Args:
        family: a `Variant`; a block table, which is combined with the stem, head and resolution of B0; or a function
            `build(depth, width, resolution)` of the coefficients that returns a Keras model, a `Complexity`, or a
            mapping with some of macs, params, memory and latency. Its cost must not fall as the coefficients grow.
        max_macs: multiply-adds for one image.
        max_params: all weights, as in `model.count_params()`.
        max_latency: seconds for one image.
        max_memory: bytes of the weights and of the largest layer's input and output, in float32.
        scaling: coefficients of Equation 3; the paper's by default.
        measure: `measure(network)` returns the seconds. By default the network is built with random weights, and the
            mean of 20 runs with a batch of one on this machine is taken, so the machine should be idle.
        precision: step of phi. If only `max_latency` is set, a coarser step such as 0.1 builds fewer networks.

    Raises:
        ValueError: there is no limit, the baseline exceeds a limit, the costs never reach one, or a cost is unknown.

    Example:
        >>> from keras_effnet.variants import VARIANTS
        >>> fit_budget(VARIANTS["b0"], max_macs=1e9).network.resolution
        256
    """
    limits = {"macs": max_macs, "params": max_params, "memory": max_memory, "latency": max_latency}
    wanted = _wanted(limits, precision)
    rule = scaling or CompoundScaling()

    @cache
    def candidate(step: int) -> tuple[Fit, dict[str, float]]:
        phi = step * precision
        network = _network(family, rule, phi)
        costs = _costs(network, wanted)
        # Latency last: a network that already exceeds another limit need not be built.
        if "latency" in wanted and "latency" not in costs and not _exceeded(costs, wanted):
            costs["latency"] = float((measure or _measure)(network))
        return Fit(phi, rule.coefficients(phi), network, costs), _exceeded(costs, wanted)

    _, too_much = candidate(0)
    if too_much:
        raise _none_fits(too_much, wanted)
    return candidate(_last(lambda step: not candidate(step)[1], math.ceil(1 / precision), MAX_PHI / precision))[0]


def _wanted(limits: Mapping[str, float | None], precision: float) -> dict[str, float]:
    """The limits that are set."""
    wanted = {name: limit for name, limit in limits.items() if limit is not None}
    if not wanted or not all(limit > 0 for limit in wanted.values()) or not precision > 0:
        raise ValueError(
            f"The limits are {wanted} and precision is {precision!r}. Expected at least one of max_macs, max_params, "
            "max_latency and max_memory, and positive numbers. Pass for example max_macs=1e9."
        )
    return wanted


def _none_fits(too_much: Mapping[str, float], wanted: Mapping[str, float]) -> ValueError:
    needs = ", ".join(f"{cost:,.6g} {LIMITS[name]} (max_{name}={wanted[name]:,.6g})" for name, cost in too_much.items())
    return ValueError(
        f"The baseline exceeds the budget: it needs {needs}. Expected limits that the baseline fits. Raise them, or "
        "start from a smaller baseline: a lower resolution, fewer filters, fewer repeats."
    )


def _last(fits: Callable[[int], bool], first: int, most: float) -> int:
    """The last step that fits, by bisection; step 0 fits, and the steps after one that does not fit do not fit."""
    low, high = 0, first
    while fits(high):
        low, high = high, 2 * high
        if high > most:
            raise ValueError(
                f"The costs are still within the budget at phi = {MAX_PHI}. Expected costs that grow with depth, width "
                "and resolution. Make build use its coefficients, or limit another cost."
            )
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def _network(family: Family, rule: CompoundScaling, phi: float) -> Any:
    if isinstance(family, Variant):
        return rule.variant(family, phi) if phi else family
    if callable(family):
        return rule.scale(family, phi)
    return rule.variant(replace(VARIANTS["b0"], name="custom", blocks=tuple(family)), phi)


def _exceeded(costs: Mapping[str, float], limits: Mapping[str, float]) -> dict[str, float]:
    return {name: costs[name] for name, limit in limits.items() if name in costs and not costs[name] <= limit}


def _costs(network: Any, wanted: Mapping[str, float]) -> dict[str, float]:
    """The costs of a network that are known without running it."""
    if isinstance(network, Mapping):
        costs = {name: float(network[name]) for name in LIMITS if name in network}
    else:
        cost = network if isinstance(network, Complexity) else _complexity(network)
        memory = cost.weight_bytes + cost.peak_bytes
        costs = {"macs": cost.macs, "params": cost.parameters, "memory": memory}
    missing = [name for name in wanted if name not in costs and name != "latency"]
    if missing:
        raise ValueError(
            f"build returned a mapping without {', '.join(missing)}. Expected a value for each limit: "
            f"{', '.join(sorted(wanted))}. Add it to the mapping, or return a model."
        )
    return costs


def _complexity(network: Any) -> Complexity:
    if isinstance(network, Variant):
        return complexity(network)
    if not hasattr(network, "count_params"):
        raise ValueError(
            f"build returned {type(network).__name__}. Expected a Keras model, a Complexity, or a mapping with some of "
            f"{', '.join(sorted(LIMITS))}."
        )
    return model_complexity(network)


def model_complexity(model: Any) -> Complexity:
    """Count the cost of a Keras model of convolutions and dense layers, as `complexity` does for a table.

    Args:
        model: a functional model with fixed input sizes. Of other kinds of layers, only the parameters are counted.
    """
    macs = activations = peak = 0
    for layer in model.layers:
        # In tf_keras, the kernel of a depthwise convolution has another name.
        weights = getattr(layer, "kernel", getattr(layer, "depthwise_kernel", None))
        if weights is None:
            continue
        inputs, outputs = _elements(layer.input), _elements(layer.output)
        kernel = math.prod(weights.shape)
        # One multiply-add per weight and output position; the channel axis is not a position.
        channels = layer.output.shape[1 if getattr(layer, "data_format", "") == "channels_first" else -1]
        macs += kernel * outputs // channels
        activations += outputs
        peak = max(peak, inputs + outputs)
    parameters = model.count_params()
    trainable = sum(math.prod(weight.shape) for weight in model.trainable_weights)
    weight_bytes, peak_bytes = parameters * FLOAT32_BYTES, peak * FLOAT32_BYTES
    return Complexity(parameters, trainable, macs, activations, weight_bytes, peak_bytes)


def _elements(tensor: Any) -> int:
    if None in tensor.shape[1:]:
        raise ValueError(
            f"The model has a tensor of shape {tuple(tensor.shape)}. Expected known sizes, because the cost depends on "
            "them. Build the model with a fixed input shape."
        )
    return math.prod(tensor.shape[1:])


def _measure(network: Any) -> float:
    from keras_effnet.design.latency import latency
    from keras_effnet.models import create

    if isinstance(network, (Complexity, Mapping)):
        raise ValueError(
            f"max_latency is set, but build returns {type(network).__name__}. Expected a model that can be run. Pass "
            "measure=, return a model, or add latency to the mapping."
        )
    return latency(create(network) if isinstance(network, Variant) else network)
