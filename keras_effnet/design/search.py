"""The search for a baseline network as an Optuna study (arXiv:1905.11946, section 4; extra `search`)."""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_effnet.design.mnas import MNAS, Goal, SearchSpace
from keras_effnet.design.shared_grid import check_database, open_study
from keras_effnet.errors import COUNT, SEED, check_choice, require_packages
from keras_effnet.variants import Variant

Score = Callable[[Variant], float]

SAMPLERS = ("random", "tpe")
# The search ends after this many draws in a row without a network to score.
PATIENCE = 500


@dataclass(frozen=True)
class Candidate:
    """A scored network.

    Args:
        network: the network, from `SearchSpace.decode`.
        macs: its multiply-adds.
        score: the result of the `score` function, such as an accuracy.
        reward: the reward of its score and cost, which the search maximises.
    """

    network: Variant
    macs: int
    score: float
    reward: float


@dataclass(frozen=True)
class Search:
    """The result of a search.

    Args:
        candidates: all scored networks, in the order of scoring.
        infeasible: number of draws that were not scored because their cost is out of range or they were repeated.
    """

    candidates: tuple[Candidate, ...]
    infeasible: int

    @property
    def best(self) -> Candidate:
        """The candidate with the highest reward; the first one if several are equal."""
        return max(self.candidates, key=lambda candidate: candidate.reward)


def search(
    score: Score,
    space: SearchSpace = MNAS,
    goal: Goal | None = None,
    *,
    trials: int = 100,
    sampler: str = "tpe",
    seed: int = 0,
    storage: Any = None,
    study_name: str = "search",
    progress: Callable[[Search], None] | None = None,
) -> Search:
    """Search a space for the network with the highest reward.

    The cost of a network is computed without building it, and only networks within the goal's tolerance are scored. A
    search in a storage can be resumed, and several processes can share it; all must use the same `score`.

    Args:
        score: `score(network)`, higher is better, such as the accuracy after a short training.
        space: the networks to choose from.
        goal: the reward and the multiply-adds; by default the paper's.
        trials: total number of networks to score, including those that are already in the storage.
        sampler: "tpe" (Optuna's tree-structured Parzen estimator) or "random".
        seed: seed of the sampler.
        storage: an Optuna storage or its URL, such as "sqlite:///search.db"; by default the search is not saved.
        study_name: name of the study in `storage`.
        progress: called with the results so far after each network.

    Raises:
        ValueError: the sampler does not exist, the study has another space or goal, or no network is feasible.
        ImportError: Optuna is not installed.

    Example:
        >>> found = search(lambda network: -len(network.stages), trials=3)
        >>> 3e8 <= found.best.macs <= 5e8
        True
    """
    check_arguments(trials=trials, sampler=sampler, seed=seed, storage=storage)
    goal = goal or Goal()
    with warnings.catch_warnings():
        # Optuna warns that the heartbeat of its databases is experimental.
        warnings.filterwarnings("ignore", category=Warning, module="optuna")
        study = _open(storage, study_name)
        _check_settings(study, space, goal)
        # A resumed study must not repeat its draws.
        draws = _Draws(space, goal, _sampler(sampler, seed + len(study.trials)))
        while len(study.trials) < trials:
            _score(study, draws.next(study.trials), goal, score)
            if progress is not None:
                progress(_found(study, space))
        return _found(study, space)


def check_arguments(*, trials: int, sampler: str, seed: int, storage: Any) -> None:
    """Check the arguments of `search`; a storage is not opened.

    Raises:
        ValueError: an invalid value.
        ImportError: Optuna is not installed.
    """
    COUNT.check("trials", trials)
    check_choice("sampler", sampler, SAMPLERS)
    SEED.check("seed", seed)
    require_packages("A search", "optuna")
    if isinstance(storage, str):
        check_database(storage)


def _open(storage: Any, name: str) -> Any:
    try:
        return open_study(storage, name)
    except Exception as error:
        # By name: SQLAlchemy is only installed together with Optuna.
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        raise ValueError(
            f"The storage {storage!r} cannot be opened: {error}. Expected the URL of a database, such as "
            "sqlite:///search.db, in an existing folder."
        ) from error


def _sampler(name: str, seed: int) -> Any:
    from optuna import samplers

    return samplers.TPESampler(seed=seed) if name == "tpe" else samplers.RandomSampler(seed=seed)


def _check_settings(study: Any, space: SearchSpace, goal: Goal) -> None:
    """Save the space and the goal in a new study; in a resumed one, check that they are equal."""
    choices = {name: list(values) for name, values in space.choices.items()}
    wanted = json.loads(json.dumps({"goal": asdict(goal), "base": repr(space.base), "choices": choices}))
    saved = study.user_attrs.get("searches")
    if saved is None:
        study.set_user_attr("searches", wanted)
    elif saved != wanted:
        changed = ", ".join(name for name in wanted if saved.get(name) != wanted[name])
        raise ValueError(
            f"The study {study.study_name!r} was started with another {changed}. Expected its own settings, with the "
            f"goal {saved['goal']}. Use these, or another name for a new study."
        )


@dataclass
class _Draw:
    """A feasible network that Optuna has drawn."""

    network: Variant
    macs: int
    params: dict[str, Any]
    distributions: dict[str, Any]
    infeasible: int


class _Draws:
    """Draws networks. Rejected draws are kept in memory only, because writing to a database is slow."""

    def __init__(self, space: SearchSpace, goal: Goal, sampler: Any) -> None:
        self.space, self.goal, self.sampler = space, goal, sampler
        self.rejected: list[Any] = []

    def next(self, scored: Sequence[Any]) -> _Draw:
        """Draw until a network is feasible and not known yet."""
        import optuna

        study = optuna.create_study(direction="maximize", sampler=self.sampler)
        study.add_trials([*scored, *self.rejected])
        known = [trial.params for trial in scored]
        costs: list[int] = []
        while len(costs) < PATIENCE:
            trial = study.ask()
            network = self.space.decode(
                {name: _suggest(trial, name, each) for name, each in self.space.choices.items()}
            )
            macs = self.goal.macs(network)
            if self.goal.feasible(macs) and trial.params not in known:
                return _Draw(network, macs, trial.params, trial.distributions, len(costs))
            costs.append(macs)
            self.rejected.append(study.tell(trial, state=optuna.trial.TrialState.PRUNED))
        raise ValueError(
            f"None of {PATIENCE} draws in a row is new and within {self.goal.tolerance:.0%} of "
            f"{self.goal.target_macs:,.0f} multiply-adds; they cost {min(costs):,} to {max(costs):,}. Expected a "
            "target within the space. Change the target, the tolerance, the resolution or the space."
        )


def _suggest(trial: Any, name: str, values: Sequence[Any]) -> Any:
    # As an integer range, the values have an order that the sampler can use.
    if isinstance(values, range):
        return trial.suggest_int(name, values[0], values[-1], step=values.step)
    return trial.suggest_categorical(name, values)


def _score(study: Any, draw: _Draw, goal: Goal, score: Score) -> None:
    from optuna.trial import create_trial

    value = float(score(draw.network))
    # Optuna rejects NaN; a network that diverged is worse than all others.
    value = -math.inf if math.isnan(value) else value
    known = {"macs": draw.macs, "score": value, "infeasible": draw.infeasible}
    reward = goal.reward(value, draw.macs)
    study.add_trial(create_trial(value=reward, params=draw.params, distributions=draw.distributions, user_attrs=known))


def _found(study: Any, space: SearchSpace) -> Search:
    trials = study.trials
    return Search(
        tuple(
            Candidate(space.decode(each.params), each.user_attrs["macs"], each.user_attrs["score"], each.value)
            for each in trials
        ),
        sum(each.user_attrs["infeasible"] for each in trials),
    )
