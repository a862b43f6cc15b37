"""The search for a baseline: space, reward and study, compared with published networks and arithmetic."""

import json
import math
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from keras_effnet import cli
from keras_effnet.blocks import B0_BLOCKS, BlockArgs, decode_blocks
from keras_effnet.complexity import complexity
from keras_effnet.design.budget import model_complexity
from keras_effnet.design.mnas import MNAS, OPERATORS, Goal, SearchSpace, StageSpace, mnas_space
from keras_effnet.variants import VARIANTS, Variant

# arXiv:1807.11626, Figure 7: MnasNet-A1.
MNASNET_A1 = decode_blocks(
    [
        "r1_k3_s11_e1_i32_o16_noskip",
        "r2_k3_s22_e6_i16_o24",
        "r3_k5_s22_e3_i24_o40_se0.25",
        "r4_k3_s22_e6_i40_o80",
        "r2_k3_s11_e6_i80_o112_se0.25",
        "r3_k5_s22_e6_i112_o160_se0.25",
        "r1_k3_s11_e6_i160_o320",
    ]
)
SMALL = SearchSpace(
    Variant("small", 1.0, 1.0, 32, 0.2, stem_filters=8, head_filters=32),
    (StageSpace(1, range(8, 17, 8), range(1, 3)), StageSpace(2, range(8, 33, 8), range(1, 3))),
)
SMALL_GOAL = Goal(3e5, classes=5)


@pytest.fixture
def search():
    optuna = pytest.importorskip("optuna", reason="optuna is not installed")
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    from keras_effnet.design.search import search

    return search


def is_large(network: Variant) -> float:
    """A score with a known order."""
    return sum(row.filters * row.repeats for row in network.blocks)


# --- the space ---


def test_b0_is_in_the_space_with_its_published_cost():
    point = MNAS.encode(B0_BLOCKS)
    network = MNAS.decode(point)
    assert network.blocks == B0_BLOCKS
    cost = complexity(network)
    assert cost.trainable == 5_288_548
    assert cost.macs == Goal().macs(network) == complexity(VARIANTS["b0"]).macs
    assert round(cost.macs / 1e9, 2) == 0.39  # arXiv:1905.11946, Table 2
    assert (point["stage1_operator"], point["stage2_operator"]) == ("sepconv", "mbconv6")


def test_mnasnet_a1_is_in_the_space_with_its_published_cost():
    network = MNAS.decode(MNAS.encode(MNASNET_A1))
    assert network.blocks == MNASNET_A1
    cost = complexity(network)
    assert cost.trainable / 1e6 == pytest.approx(3.9, rel=0.02)  # arXiv:1807.11626, Table 1
    assert cost.macs / 1e6 == pytest.approx(312, rel=0.02)


def test_filters_range_from_75_to_125_percent_of_mobilenetv2():
    for stage, filters in zip(MNAS.stages, (16, 24, 32, 64, 96, 160, 320), strict=True):
        # Rounded to multiples of 8, and never down by more than 10 %.
        assert 0.75 * filters - 4 <= min(stage.filters) <= 0.75 * filters + 8
        assert 1.25 * filters - 4 <= max(stage.filters) <= 1.25 * filters + 8
        assert filters in stage.filters


def test_the_size_is_the_product_of_the_choices():
    filters, repeats = 2 * 2 * 3 * 5 * 7 * 11 * 21, 2 * 3 * 3 * 3 * 3 * 3 * 2
    assert MNAS.size == (4 * 2 * 2 * 2) ** 7 * filters * repeats
    assert len(MNAS.choices) == 7 * 6


def test_the_operators_are_those_of_published_tables():
    kinds = {(row.conv_type, row.expand_ratio) for row in (*B0_BLOCKS, *MNASNET_A1)} | {("fused", 1)}
    # arXiv:2104.00298, section 3.2: MBConv and Fused-MBConv with the expansion ratios 1, 4 and 6.
    kinds |= {(kind, ratio) for kind in ("depthwise", "fused") for ratio in (4, 6)}
    assert set(OPERATORS.values()) == kinds


def test_points_and_tables_convert_to_each_other():
    rng = random.Random(0)
    for _ in range(200):
        point = MNAS.sample(rng)
        assert MNAS.encode(MNAS.decode(point).blocks) == point


@pytest.mark.builders
def test_a_drawn_network_can_be_built_and_has_the_computed_cost():
    from keras_effnet.models import create

    rng = random.Random(1)
    for _ in range(3):
        network = SMALL.decode(SMALL.sample(rng))
        counted = model_complexity(create(network, classes=5))
        assert counted.macs == SMALL_GOAL.macs(network)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        (B0_BLOCKS[:6], "The table has 6 rows. Expected 7"),
        ((*B0_BLOCKS[:6], BlockArgs(1, 7, 1, 6, 320)), "Row 7 .* outside of the space because of kernel_size"),
        ((*B0_BLOCKS[:6], BlockArgs(1, 3, 1, 4, 320)), "Row 7 .* because of operator"),
        ((*B0_BLOCKS[:6], BlockArgs(1, 3, 2, 6, 320)), "Row 7 .* because of strides"),
    ],
)
def test_a_table_outside_of_the_space_is_rejected(blocks, message):
    with pytest.raises(ValueError, match=message):
        MNAS.encode(blocks)


def test_a_point_with_an_unknown_value_is_rejected():
    point = MNAS.encode(B0_BLOCKS) | {"stage3_kernel_size": 4}
    with pytest.raises(ValueError, match="stage3_kernel_size of the point is 4. Expected one of 3, 5."):
        MNAS.decode(point)


def test_a_resolution_below_32_pixels_is_rejected():
    from dataclasses import replace

    space = mnas_space(replace(VARIANTS["b0"], resolution=16))
    with pytest.raises(ValueError, match="resolution is 16. Expected at least 32"):
        Goal().macs(space.decode(space.sample(random.Random(0))))


# --- the reward ---


def test_the_reward_matches_the_paper():
    assert Goal(400e6).reward(0.75, 400e6) == 0.75
    assert Goal(400e6).reward(0.75, 800e6) == pytest.approx(0.75 * 2**-0.07)
    # arXiv:1807.11626, section 3: twice the cost pays for 5 % more accuracy, relative.
    assert Goal(400e6).reward(1.05, 800e6) == pytest.approx(1.0, abs=0.001)


@pytest.mark.parametrize("arguments", [{"target_macs": 0}, {"target_macs": math.nan}, {"tolerance": 1}])
def test_an_invalid_goal_is_rejected(arguments):
    with pytest.raises(ValueError, match=f"{next(iter(arguments))} is .* Expected a number above 0"):
        Goal(**arguments)


# --- the study ---


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_networks_with_infeasible_cost_are_never_scored(search, sampler):
    scored = []

    def score(network: Variant) -> float:
        scored.append(complexity(network, classes=5).macs)
        return is_large(network)

    found = search(score, SMALL, SMALL_GOAL, trials=15, sampler=sampler)
    assert len(scored) == len(found.candidates) == 15
    assert all(225_000 <= macs <= 375_000 for macs in scored)
    assert [candidate.macs for candidate in found.candidates] == scored
    assert found.infeasible > 0
    assert found.best.reward == max(score * (macs / 3e5) ** -0.07 for score, macs in _pairs(found))


def _pairs(found):
    return [(candidate.score, candidate.macs) for candidate in found.candidates]


def test_no_network_is_scored_twice(search):
    found = search(is_large, SMALL, SMALL_GOAL, trials=40)
    assert len({candidate.network.blocks for candidate in found.candidates}) == 40


def test_tpe_finds_a_higher_reward_than_random_search(search):
    guided, drawn = (search(is_large, trials=40, sampler=sampler).best.reward for sampler in ("tpe", "random"))
    assert guided > drawn


def test_an_interrupted_search_is_resumed(search, tmp_path: Path):
    calls, options = [], {"storage": f"sqlite:///{tmp_path}/search.db", "sampler": "random"}

    def score(network: Variant) -> float:
        calls.append(network)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return is_large(network)

    with pytest.raises(KeyboardInterrupt):
        search(score, SMALL, SMALL_GOAL, trials=6, **options)
    found = search(score, SMALL, SMALL_GOAL, trials=6, **options)
    assert [candidate.network for candidate in found.candidates] == [*calls[:3], *calls[4:]]
    assert len(calls) == 7
    assert search(score, SMALL, SMALL_GOAL, trials=6, **options) == found
    assert len(calls) == 7
    assert len(search(score, SMALL, SMALL_GOAL, trials=8, **options).candidates) == 8
    with pytest.raises(ValueError, match="was started with another goal"):
        search(score, SMALL, Goal(4e5, classes=5), trials=8, **options)


WORKER = """
import sys, time, optuna
sys.path.insert(0, sys.argv[2])
optuna.logging.set_verbosity(optuna.logging.WARNING)
from design.test_search import SMALL, SMALL_GOAL, is_large
from keras_effnet.design.search import search
found = search(lambda network: time.sleep(0.1) or is_large(network), SMALL, SMALL_GOAL, trials=12, storage=sys.argv[1])
print(len(found.candidates))
"""


def test_two_processes_share_a_search(search, tmp_path: Path):
    command = [sys.executable, "-c", WORKER, f"sqlite:///{tmp_path}/search.db", str(Path(__file__).parents[1])]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(2)]
    results = [process.communicate(timeout=120) for process in processes]
    assert all(process.returncode == 0 for process in processes), results
    # One may still have been scoring a network when the other finished the twelfth.
    assert all(12 <= int(out) <= 13 for out, _ in results)


def test_a_network_that_diverged_is_never_the_best(search):
    found = search(lambda network: math.nan if network.blocks[0].skip else 1.0, SMALL, SMALL_GOAL, trials=12)
    assert not found.best.network.blocks[0].skip
    assert any(candidate.reward == -math.inf for candidate in found.candidates)


def test_an_unreachable_target_is_rejected_with_the_range_of_costs(search):
    with pytest.raises(ValueError, match=r"within 25% of 40 multiply-adds; they cost \d{3},\d{3},\d{3} to "):
        search(is_large, MNAS, Goal(40), sampler="random")


def test_an_unknown_sampler_is_rejected(search):
    with pytest.raises(ValueError, match="sampler is 'grid'. Expected one of random, tpe"):
        search(is_large, sampler="grid")


def test_without_optuna_the_error_names_the_extra_to_install(monkeypatch: pytest.MonkeyPatch):
    from keras_effnet.design.search import search

    monkeypatch.setitem(sys.modules, "optuna", None)
    for storage in (None, "sqlite:///search.db"):
        with pytest.raises(ImportError, match="pip install optuna"):
            search(is_large, storage=storage)


# --- the command ---


def run(*arguments: object):
    return CliRunner().invoke(cli.app, ["search", *map(str, arguments)], env={"COLUMNS": "200"})


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch):
    """Score networks by their filters, so that the command needs neither photos nor training."""
    monkeypatch.setattr("keras_effnet.cli.search._training", lambda *_: (is_large, 1000))


def test_the_command_prints_the_best_block_table_and_saves_the_search(search, untrained, tmp_path: Path):
    options = ("--data", ".", "--target-macs", "0.3B", "--storage", f"sqlite:///{tmp_path}/search.db")
    shown = run(*options, "--trials", 4)
    assert shown.exit_code == 0, shown.output
    answer = json.loads(run(*options, "--trials", 4, "--json").stdout)
    best = decode_blocks(answer["best"]["blocks"])
    assert all(string in shown.stdout for string in answer["best"]["blocks"])
    assert len(answer["all"]) == 4
    assert 225e6 <= complexity(MNAS.decode(MNAS.encode(best))).macs == answer["best"]["macs"] <= 375e6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target-macs", "40", "--sampler", "random"], "is new and within 25% of 40"),
        (["--storage", "sqlite:////nowhere/x.db"], "its folder does not exist"),
        (["--sampler", "grid"], "Expected one of random, tpe"),
    ],
)
def test_a_search_that_cannot_run_ends_in_one_message(search, untrained, arguments, message):
    done = run("--data", ".", *arguments)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--data", "/nowhere"], 1, "/nowhere"),
        (["--data", ".", "--target-macs", "4X"], 2, "Expected for example 400M"),
        (["--target-macs", "4M"], 2, "give the data to train on"),
    ],
)
def test_bad_input_ends_in_one_message(search, arguments, status, message):
    done = run(*arguments)
    assert done.exit_code == status
    assert message in done.output
    assert "Traceback" not in done.output


@pytest.mark.slow
def test_the_command_trains_on_photos_and_resumes_a_saved_search(search, tmp_path: Path):
    rng = np.random.default_rng(0)
    for name, level in (("dark", 60), ("light", 190)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(24):
            pixels = rng.normal(level, 20, (32, 32, 3)).clip(0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{i}.png")
    options = ("--data", tmp_path / "photos", "--size", 32, "--target-macs", "8M", "--epochs", 1, "--json")
    kept = ("--storage", f"sqlite:///{tmp_path}/search.db", "--sampler", "random")
    first = json.loads(run(*options, *kept, "--trials", 1).stdout)
    again = json.loads(run(*options, *kept, "--trials", 2).stdout)
    assert again["all"][0] == first["all"][0]
    assert len(again["all"]) == 2
    assert first["goal"]["classes"] == 2
    for each in again["all"]:
        assert 0 <= each["score"] <= 1
        assert 6e6 <= each["macs"] <= 10e6
        assert each["reward"] == pytest.approx(each["score"] * (each["macs"] / 8e6) ** -0.07)
