"""Compound scaling, grid search and budgets, compared with the equations and numbers of the paper."""

import json
import math
import subprocess
import sys
import textwrap
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_effnet.blocks import B0_BLOCKS, decode_blocks
from keras_effnet.complexity import complexity, layers
from keras_effnet.design.budget import fit_budget, model_complexity
from keras_effnet.design.grid import candidates, grid_search
from keras_effnet.scaling import Coefficients, CompoundScaling, flops_ratio, round_resolution, scale
from keras_effnet.variants import VARIANTS, tiny

PAPER = Coefficients(1.2, 1.1, 1.15)  # arXiv:1905.11946, section 4, step 1


def distance(depth: float, width: float, resolution: float) -> float:
    """A score with a known best point: the paper's coefficients."""
    return -abs(depth - 1.2) - abs(width - 1.1) - abs(resolution - 1.15)


# --- Equation 3 ---


def test_flops_grow_with_depth_and_the_squares_of_width_and_resolution():
    assert round(flops_ratio(1.2, 1.2, 1.2), 2) == 2.49
    assert (flops_ratio(2, 1, 1), flops_ratio(1, 2, 1), flops_ratio(1, 1, 2)) == (2, 4, 4)


def test_eighteen_layers_64_filters_and_224_pixels_become_22_70_and_256():
    assert CompoundScaling().apply(18, 64, 224, phi=1) == (22, 70, 256)


def test_the_default_coefficients_are_the_papers():
    law = CompoundScaling()
    assert law.coefficients(1) == PAPER
    assert law.coefficients(0) == (1, 1, 1)
    assert law.coefficients(2.5) == pytest.approx((1.2**2.5, 1.1**2.5, 1.15**2.5))
    assert law.flops_ratio(3) == pytest.approx((1.2 * 1.1**2 * 1.15**2) ** 3)


@pytest.mark.parametrize("values", [(1.2, 1.2, 1.2), (1.0, 1.0, 1.0), (4, 1, 1)])
def test_coefficients_that_miss_the_budget_are_rejected(values):
    with pytest.raises(ValueError, match=r"alpha \* beta\^2 \* gamma\^2 is .* Expected 2.0 within 0.1"):
        CompoundScaling(*values)


@pytest.mark.parametrize("name", ["alpha", "beta", "gamma"])
@pytest.mark.parametrize("value", [0.99, -1, math.nan, math.inf])
def test_a_coefficient_below_one_is_rejected(name, value):
    with pytest.raises(ValueError, match=rf"{name} is .* Expected a number of at least 1"):
        CompoundScaling(**{name: value}, budget=2, tolerance=100)


def test_budget_and_tolerance_can_be_changed():
    assert CompoundScaling(1.5, 1.3, 1.25, budget=4.0).flops_ratio(1) == pytest.approx(3.96, abs=0.01)
    with pytest.raises(ValueError, match="within 0.01"):
        CompoundScaling(tolerance=0.01)


@pytest.mark.parametrize("phi", [-0.1, math.nan, math.inf])
def test_a_negative_or_infinite_phi_is_rejected(phi):
    with pytest.raises(ValueError, match="Expected a finite number of at least 0"):
        CompoundScaling().coefficients(phi)


def test_phi_zero_returns_the_baseline():
    for base in (VARIANTS["b0"], VARIANTS["b2"]):
        same = CompoundScaling().variant(base, 0)
        assert (same.stages, same.resolution, same.stem) == (base.stages, base.resolution, base.stem)


def test_any_network_can_be_scaled():
    law = CompoundScaling()
    assert law.scale(B0_BLOCKS, 1) == scale(B0_BLOCKS, width_coefficient=1.1, depth_coefficient=1.2)
    assert law.scale(lambda depth, width, resolution: (depth, width, resolution), 1) == PAPER


def test_the_cost_of_a_scaled_variant_is_close_to_equation_3():
    law, base = CompoundScaling(), VARIANTS["b0"]
    for phi in (1, 2, 3, 4.5, 6):
        growth = complexity(law.variant(base, phi)).macs / complexity(base).macs
        # Repeats are rounded up, which matters in a short table.
        assert 0.95 < growth / law.flops_ratio(phi) < 1.35


@given(st.integers(32, 1000), st.floats(1, 5), st.floats(0, 1))
def test_a_larger_coefficient_never_gives_a_smaller_image(resolution, coefficient, more):
    assert round_resolution(resolution, coefficient) <= round_resolution(resolution, coefficient + more)


def test_a_coefficient_below_one_shrinks_an_image():
    assert [round_resolution(224, coefficient) for coefficient in (0.25, 0.5, 0.9)] == [56, 112, 200]


@pytest.mark.parametrize("phi", [0, 0.7, 4])
def test_the_inlined_sums_equal_the_sums_over_layers(phi):
    variant = CompoundScaling().variant(VARIANTS["b0"], phi)
    rows, cost = list(layers(variant)), complexity(variant)
    sums = (sum(row.trainable for row in rows), sum(row.macs for row in rows), sum(row.activations for row in rows))
    assert sums == (cost.trainable, cost.macs, cost.activations)
    assert sum(row.parameters for row in rows) == cost.parameters
    assert max(row.memory for row in rows) * 4 == cost.peak_bytes


# --- grid search ---


def test_all_candidates_meet_the_constraint_and_include_the_papers():
    points = candidates(step=0.05, tolerance=0.1)
    assert PAPER in points
    assert len(set(points)) == len(points)
    assert all(min(point) >= 1 and abs(flops_ratio(*point) - 2) <= 0.1 for point in points)
    brute = [
        (1 + a / 20, 1 + b / 20, 1 + c / 20)
        for a in range(30)
        for b in range(15)
        for c in range(15)
        if abs((1 + a / 20) * (1 + b / 20) ** 2 * (1 + c / 20) ** 2 - 2) <= 0.1
    ]
    assert [tuple(map(pytest.approx, point)) for point in points] == brute


@pytest.mark.parametrize("workers", [1, 3])
def test_a_grid_search_returns_all_trials_and_the_best(workers):
    found = grid_search(distance, step=0.05, workers=workers)
    assert tuple(trial.coefficients for trial in found.trials) == candidates(step=0.05)
    assert found.best.coefficients == PAPER
    assert found.scaling == CompoundScaling()


def test_a_grid_search_accepts_a_process_pool():
    with ProcessPoolExecutor(2) as pool:
        assert grid_search(flops_ratio, step=0.25, workers=pool).best.score <= 2.1


def test_a_grid_search_in_a_storage_resumes_after_an_interruption(tmp_path: Path):
    optuna = pytest.importorskip("optuna", reason="optuna is not installed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage, calls = f"sqlite:///{tmp_path}/search.db", []

    def evaluate(depth: float, width: float, resolution: float) -> float:
        calls.append((depth, width, resolution))
        if len(calls) == 8:
            raise KeyboardInterrupt
        return distance(depth, width, resolution)

    with pytest.raises(KeyboardInterrupt):
        grid_search(evaluate, step=0.1, storage=storage)
    found = grid_search(evaluate, step=0.1, storage=storage)
    again = grid_search(evaluate, step=0.1, storage=storage)
    points = candidates(step=0.1)
    # Only the eighth, which was interrupted, is evaluated twice.
    assert len(calls) == len(points) + 1
    assert found == again
    assert len(found.trials) == len(points)


def test_a_network_that_diverged_is_never_the_best():
    found = grid_search(lambda d, w, r: math.nan if d > 1 else w, step=0.1)
    assert found.best.coefficients.depth == 1
    with pytest.raises(ValueError, match="None of the 20 points has a score other than NaN"):
        grid_search(lambda *_: math.nan, step=0.1)


def test_the_first_error_in_a_worker_is_raised():
    with pytest.raises(ZeroDivisionError):
        grid_search(lambda *_: 1 / 0, step=0.1, workers=2)


@pytest.mark.parametrize("arguments", [{"step": 0}, {"tolerance": -1}, {"budget": 0.5}, {"step": math.nan}])
def test_an_invalid_grid_is_rejected(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .* Expected a number "):
        candidates(**arguments)


def test_a_grid_without_points_is_rejected():
    with pytest.raises(ValueError, match="No point with step 0.7"):
        candidates(step=0.7, tolerance=0.01)


WORKER = """
import sys, time
import optuna
from keras_effnet.design.grid import grid_search
optuna.logging.set_verbosity(optuna.logging.WARNING)
calls = []
def evaluate(depth, width, resolution):
    calls.append([depth, width, resolution])
    time.sleep(0.03)
    return -abs(depth - 1.2) - abs(width - 1.1)
storage = sys.argv[1]
if storage.endswith(".log"):
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    storage = JournalStorage(JournalFileBackend(storage))
found = grid_search(evaluate, step=0.1, storage=storage)
import json
print(json.dumps([calls, len(found.trials), found.pending]))
"""


@pytest.mark.parametrize("storage", ["sqlite:///{}/search.db", "{}/search.log"])
def test_two_processes_share_a_search_in_one_storage(storage, tmp_path: Path):
    pytest.importorskip("optuna", reason="optuna is not installed")
    command = [sys.executable, "-c", textwrap.dedent(WORKER), storage.format(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    results = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    evaluated = [tuple(point) for calls, _, _ in results for point in calls]
    assert set(evaluated) == set(candidates(step=0.1))
    # SQLite sometimes gives a point to both.
    assert len(evaluated) <= len(candidates(step=0.1)) + 4
    assert max(trials for _, trials, _ in results) == len(candidates(step=0.1))
    assert all(trials + pending == len(candidates(step=0.1)) for _, trials, pending in results)


def test_a_study_repeats_only_the_failed_point():
    optuna = pytest.importorskip("optuna", reason="optuna is not installed")
    study, calls = optuna.create_study(direction="maximize"), []

    def evaluate(*point: float) -> float:
        calls.append(point)
        if len(calls) == 5:
            raise ValueError("out of memory")
        return math.nan if len(calls) == 7 else distance(*point)

    with pytest.raises(ValueError, match="out of memory"):
        grid_search(evaluate, step=0.1, study=study)
    found = grid_search(evaluate, step=0.1, study=study)
    assert grid_search(evaluate, step=0.1, study=study) == found
    assert len(calls) == len(found.trials) + 1 == 21
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="Expected a number of threads"):
        grid_search(evaluate, study=study, workers=pool)


# --- Equation 2 ---


@pytest.mark.parametrize("limits", [{"max_macs": 1e9}, {"max_params": 2e7}, {"max_memory": 5e7}])
def test_the_network_fits_the_budget_and_the_next_larger_one_does_not(limits):
    found = fit_budget(**limits)
    (name, limit), law = next(iter(limits.items())), CompoundScaling()
    cost = found.costs[name.removeprefix("max_")]
    following = complexity(law.variant(VARIANTS["b0"], found.phi + 0.01))
    theirs = {"max_macs": following.macs, "max_params": following.parameters}
    theirs["max_memory"] = following.weight_bytes + following.peak_bytes
    assert cost <= limit < theirs[name]
    assert found.network == law.variant(VARIANTS["b0"], found.phi)


def test_the_tightest_of_several_limits_decides():
    alone = fit_budget(max_params=1e7)
    assert fit_budget(max_macs=1e12, max_params=1e7, max_memory=1e12) == alone


def test_a_block_table_can_be_scaled_to_a_budget():
    blocks = decode_blocks(["r1_k3_s11_e1_i32_o16_se0.25", "r2_k3_s22_e6_i16_o24_se0.25"])
    found = fit_budget(blocks, max_macs=2e9)
    assert found.network.blocks == blocks
    assert 1e9 < found.costs["macs"] <= 2e9


def test_a_build_function_may_return_numbers():
    found = fit_budget(lambda d, w, r: {"macs": 1e6 * flops_ratio(d, w, r), "params": 10}, max_macs=1e7, max_params=11)
    assert found.costs["macs"] == pytest.approx(1e7, rel=0.01)
    with pytest.raises(ValueError, match="mapping without memory"):
        fit_budget(lambda d, w, r: {"macs": 1}, max_memory=1)
    with pytest.raises(ValueError, match="build returned float"):
        fit_budget(lambda d, w, r: d, max_macs=1)


def test_latency_is_measured_only_if_the_other_limits_are_met():
    seen = []

    def measure(variant):
        seen.append(variant)
        return complexity(variant).macs / 1e9

    found = fit_budget(max_macs=1e9, max_latency=0.7, measure=measure, precision=0.1)
    assert 0.5 < found.costs["latency"] <= 0.7
    assert all(complexity(variant).macs <= 1e9 for variant in seen)


@pytest.mark.builders
def test_the_cost_of_a_keras_model_equals_that_of_its_table():
    from keras_effnet.models import create

    ours, counted = complexity(tiny()), model_complexity(create(tiny()))
    assert (counted.parameters, counted.trainable, counted.macs) == (ours.parameters, ours.trainable, ours.macs)


def test_a_build_function_may_return_a_keras_model_that_is_timed():
    from keras_effnet._keras import keras

    def build(depth, width, resolution):
        image = keras.Input((int(8 * resolution), int(8 * resolution), 3))
        x = keras.layers.Conv2D(int(4 * width), 3, padding="same")(image)
        return keras.Model(image, keras.layers.GlobalAveragePooling2D()(x))

    found = fit_budget(build, max_params=4 * 4 * 28, max_latency=60, precision=1)
    assert found.network.output_shape == (None, int(4 * found.coefficients.width))
    assert found.costs["params"] == found.network.count_params() <= 448
    assert 0 < found.costs["latency"] < 60


def test_a_budget_below_the_baseline_is_rejected_with_its_cost():
    with pytest.raises(
        ValueError, match=r"baseline exceeds the budget: it needs 3\.85815e\+08 multiply-adds .* smaller baseline"
    ):
        fit_budget(max_macs=1e6)


def test_costs_that_never_grow_are_rejected():
    with pytest.raises(ValueError, match="still within the budget at phi = 64"):
        fit_budget(lambda *_: {"macs": 1}, max_macs=2)


@pytest.mark.parametrize("limits", [{}, {"max_macs": 0}, {"max_macs": -1, "max_params": 5}, {"max_macs": math.nan}])
def test_a_budget_without_a_positive_limit_is_rejected(limits):
    with pytest.raises(ValueError, match="Expected at least one of max_macs"):
        fit_budget(**limits)
