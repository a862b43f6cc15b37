"""The search for a baseline network as an Optuna study (arXiv:1905.11946, section 4; extra `search`)."""

import json
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from keras_effnet.design.mnas import MNAS, Goal, SearchSpace
from keras_effnet.design.shared_grid import open_study
from keras_effnet.variants import Variant

Score = Callable[[Variant], float]

SAMPLERS = ("random", "tpe")
# So many draws in a row without a network to score, and the search ends.
PATIENCE = 500


@dataclass(frozen=True)
class Candidate:
    """A network that was scored.

    Args:
        network: as `SearchSpace.decode` gives it.
        macs: its multiply-adds.
        score: what the search was given for it, say an accuracy.
        reward: what the search maximises.
    """

    network: Variant
    macs: int
    score: float
    reward: float


@dataclass(frozen=True)
class Search:
    """What a search found.

    Args:
        candidates: every scored network, in the order of scoring.
        infeasible: how many draws cost too much or too little (or came twice) and were never scored.
    """

    candidates: tuple[Candidate, ...]
    infeasible: int

    @property
    def best(self) -> Candidate:
        """The candidate with the highest reward, the first of equals."""
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

    What a network costs is known by arithmetic before anything is built; only those within the goal's tolerance are
    scored. A study in a storage is gone on with, and several processes may share it; the score must be the same one.

    Args:
        score: `score(network)`, higher is better, such as the accuracy after a short training.
        space: the networks to choose from.
        goal: the reward and the multiply-adds; by default the paper's.
        trials: how many networks are scored in all, those that a study already has included.
        sampler: "tpe" (Optuna's tree-structured Parzen estimator) or "random".
        seed: of the sampler.
        storage: an Optuna storage or its URL, "sqlite:///search.db"; by default nothing is kept.
        study_name: name of the study in `storage`.
        progress: called with what is known after each network.

    Raises:
        ValueError: another sampler, a study of another space or goal, or a space without a feasible network.
        ImportError: Optuna is missing.

    Example:
        >>> found = search(lambda network: -len(network.stages), trials=3)
        >>> 3e8 <= found.best.macs <= 5e8
        True
    """
    if sampler not in SAMPLERS or trials < 1:
        raise ValueError(
            f"sampler is {sampler!r} and trials {trials!r}. Expected one of {', '.join(SAMPLERS)}, and at least one "
            "trial. Choose one of these."
        )
    goal = goal or Goal()
    with warnings.catch_warnings():
        # Optuna counts the heartbeat of its databases among what may change.
        warnings.filterwarnings("ignore", category=Warning, module="optuna")
        study = _open(storage, study_name)
        _claim(study, space, goal)
        # A study that is gone on with must not draw the same again.
        draws = _Draws(space, goal, _sampler(sampler, seed + len(study.trials)))
        while len(study.trials) < trials:
            _score(study, draws.next(study.trials), goal, score)
            if progress is not None:
                progress(_found(study, space))
        return _found(study, space)


def _open(storage: Any, name: str) -> Any:
    try:
        return open_study(storage, name)
    except Exception as error:
        # Optuna brings SQLAlchemy along: without it there is no such error to name.
        if not type(error).__module__.startswith("sqlalchemy."):
            raise
        raise ValueError(
            f"The storage {storage!r} cannot be opened: {error}. Expected the URL of a database. Give one such as "
            "sqlite:///search.db, in a folder that is there."
        ) from error


def _sampler(name: str, seed: int) -> Any:
    from optuna import samplers

    return samplers.TPESampler(seed=seed) if name == "tpe" else samplers.RandomSampler(seed=seed)


def _claim(study: Any, space: SearchSpace, goal: Goal) -> None:
    """Note down what a study searches, or check that it is the same."""
    choices = {name: list(values) for name, values in space.choices.items()}
    wanted = json.loads(json.dumps({"goal": asdict(goal), "base": repr(space.base), "choices": choices}))
    kept = study.user_attrs.get("searches")
    if kept is None:
        study.set_user_attr("searches", wanted)
    elif kept != wanted:
        changed = ", ".join(name for name in wanted if kept.get(name) != wanted[name])
        raise ValueError(
            f"The study {study.study_name!r} searches something else: its {changed} is not the same. Expected what it "
            f"began with, the goal {kept['goal']}. Give that, or another name for a new study."
        )


@dataclass
class _Draw:
    """A network that is worth scoring, as Optuna drew it."""

    network: Variant
    macs: int
    params: dict[str, Any]
    distributions: dict[str, Any]
    infeasible: int


class _Draws:
    """Where networks come from. What is not scored stays in memory: a database takes long to write."""

    def __init__(self, space: SearchSpace, goal: Goal, sampler: Any) -> None:
        self.space, self.goal, self.sampler = space, goal, sampler
        self.rejected: list[Any] = []

    def next(self, scored: Sequence[Any]) -> _Draw:
        """Draw until a network is feasible and new."""
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
            f"Of {PATIENCE} networks in a row none is new and within {self.goal.tolerance:.0%} of "
            f"{self.goal.target_macs:,.0f} multiply-adds; they take {min(costs):,} to {max(costs):,}. Expected a "
            "target that the space reaches. Change the target, the tolerance, the resolution, or the space."
        )


def _suggest(trial: Any, name: str, values: Sequence[Any]) -> Any:
    # Numbers in even steps have an order, which the sampler can use.
    if isinstance(values, range):
        return trial.suggest_int(name, values[0], values[-1], step=values.step)
    return trial.suggest_categorical(name, values)


def _score(study: Any, draw: _Draw, goal: Goal, score: Score) -> None:
    from optuna.trial import create_trial

    value = float(score(draw.network))
    # Optuna takes no NaN; a network that diverged is worse than any other.
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
