"""Design with EfficientNetV2: fused blocks are scaled, costed and searched as what they are."""

import random
from dataclasses import replace

import pytest

from keras_effnet.complexity import complexity
from keras_effnet.design.budget import fit_budget, model_complexity
from keras_effnet.design.mnas import Goal
from keras_effnet.design.v2_space import v2_reward, v2_space
from keras_effnet.models import create
from keras_effnet.variants import VARIANTS


@pytest.mark.parametrize("limits", [{"max_macs": 1.5e9}, {"max_params": 1.2e7}])
def test_a_budget_is_fitted_with_the_rounding_and_the_blocks_of_v2(limits: dict[str, float]) -> None:
    found = fit_budget(VARIANTS["v2-b0"], **limits)
    cost = complexity(found.network)
    (name, limit) = next(iter(limits.items()))
    assert 0.8 * limit < {"max_macs": cost.macs, "max_params": cost.parameters}[name] <= limit
    assert [row.conv_type for row in found.network.stages] == ["fused"] * 3 + ["depthwise"] * 3
    assert (found.network.round_limit, found.network.bn_momentum) == (0.0, 0.9)


def test_the_cost_of_a_drawn_network_is_that_of_the_built_model() -> None:
    base = VARIANTS["v2-b0"]
    small = replace(base, width_coefficient=0.25, depth_coefficient=0.5, resolution=64, head_filters=64)
    space = v2_space(small)
    rng = random.Random(4)
    kinds = set()
    for _ in range(2):
        network = space.decode(space.sample(rng) | {f"stage{i}_repeats": 1 + i % 2 for i in range(1, 7)})
        kinds |= {(row.conv_type, row.expand_ratio) for row in network.blocks}
        found, expected = model_complexity(create(network, classes=5)), complexity(network, classes=5)
        assert (found.macs, found.trainable) == (expected.macs, expected.trainable)
    assert {kind for kind, _ in kinds} == {"fused", "depthwise"}


def test_the_space_of_v2_is_searched_within_a_goal() -> None:
    pytest.importorskip("optuna", reason="Optuna is not installed")
    from keras_effnet.design.search import search

    base = replace(VARIANTS["v2-b0"], width_coefficient=0.5, resolution=32)
    goal = Goal(2e7, tolerance=0.5, classes=5)
    found = search(
        lambda network: float(sum(row.conv_type == "fused" for row in network.blocks)),
        v2_space(base),
        goal,
        trials=4,
        sampler="random",
    )
    assert len(found.candidates) == 4
    assert all(1e7 <= complexity(each.network, classes=5).macs <= 3e7 for each in found.candidates)


def test_the_reward_of_v2_matches_its_formula() -> None:
    assert v2_reward(0.8, 2.0, 3.0) == pytest.approx(0.8 * 2**-0.07 * 3**-0.05)
    with pytest.raises(ValueError, match="step_time is 0"):
        v2_reward(0.8, 0, 1.0)
