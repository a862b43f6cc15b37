"""The search space and the reward of EfficientNetV2's architecture search (arXiv:2104.00298, section 3.3)."""

from dataclasses import replace

from keras_effnet.design.mnas import SearchSpace, StageSpace
from keras_effnet.errors import Range
from keras_effnet.variants import VARIANTS, Variant

# w and v, found by trial as in MnasNet.
STEP_TIME_EXPONENT = -0.07
PARAMETERS_EXPONENT = -0.05
OPERATORS = ("conv", "sepconv", "fused4", "fused6", "mbconv4", "mbconv6")
LAYERS = range(1, 11)


def v2_space(base: Variant = VARIANTS["b4"]) -> SearchSpace:
    """Return the space of V2's search: MBConv or Fused-MBConv, layers, kernel 3 or 5, expansion 1, 4 or 6.

    The numbers of filters are those of EfficientNet, searched before; all blocks with equal shapes have a skip. The
    paper does not describe the choice of squeeze-and-excitation, nor the numbers of layers, which are 1 to 10 here.

    Args:
        base: the network with the filters and strides; the paper searched near the size of B4.

    Example:
        >>> v2_space().stages[1].filters, v2_space().choices["stage2_operator"][2:4]
        ((32,), ('fused4', 'fused6'))
    """
    stages = tuple(StageSpace(row.strides, (row.filters,), LAYERS, OPERATORS, skip=(True,)) for row in base.stages)
    unscaled = replace(
        base,
        width_coefficient=1.0,
        depth_coefficient=1.0,
        blocks=base.stages,
        stem_filters=base.stem,
        head_filters=base.head,
    )
    return SearchSpace(unscaled, stages)


def v2_reward(accuracy: float, step_time: float, parameters: float) -> float:
    """Compute the reward of a network, A * S^w * P^v with w = -0.07 and v = -0.05.

    Args:
        accuracy: A, after a short training.
        step_time: S, the time of a training step, as a multiple of that of a reference.
        parameters: P, the number of parameters, as a multiple of that of a reference.

    Raises:
        ValueError: the time or the number of parameters is not positive.

    Example:
        >>> round(v2_reward(0.8, 2.0, 1.0), 4), v2_reward(0.8, 1.0, 1.0)
        (0.7621, 0.8)
    """
    Range(above=0).check("step_time", step_time)
    Range(above=0).check("parameters", parameters)
    return accuracy * step_time**STEP_TIME_EXPONENT * parameters**PARAMETERS_EXPONENT
