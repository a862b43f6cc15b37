"""A grid search over any number of processes and machines: Optuna hands out the points (extra `search`)."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from keras_effnet.scaling import Coefficients

AXES = Coefficients._fields
HEARTBEAT_SECONDS = 60


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise ImportError(
            f"Optuna could not be imported: {error}. Expected it for a search that processes share. Install it with "
            'pip install "keras_effnet[search]", or run a grid search with workers= alone.'
        ) from error
    return optuna


def open_study(storage: Any, name: str) -> Any:
    """Make or join the study of this name in an Optuna storage or its URL."""
    optuna = _optuna()
    if isinstance(storage, str):
        storage = _open_database(storage)
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


def _open_database(url: str) -> Any:
    """A database with a heartbeat, so that what a process had taken when it died is handed out again."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for wait in (0.2, 0.4, 0.8, 1.6):
            try:
                return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS)
            except SQLAlchemyError:
                # Of two processes that begin together one makes the tables; the other comes too late or too early.
                time.sleep(wait)
        return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS)


def share(
    study: Any, points: Sequence[Coefficients], evaluate: Callable[[float, float, float], float], threads: int
) -> tuple[dict[Coefficients, float], int]:
    """Evaluate what is left of the points, together with whoever else works on the study.

    Returns:
        The scores known by then, and how many points others have not finished.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", _optuna().exceptions.ExperimentalWarning)
        _optuna().storages.fail_stale_trials(study)
    known = {_point(trial) for trial in _live(study)}
    for point in points:
        if point not in known:
            study.enqueue_trial(point._asdict(), user_attrs=point._asdict())
    _work(study, evaluate, threads)
    done = [trial for trial in _live(study) if trial.state.name == "COMPLETE"]
    wanted: set[Any] = set(points)
    scores = {point: trial.value for trial in reversed(done) if (point := _point(trial)) in wanted}
    return scores, len(points) - len(scores)


def _work(study: Any, evaluate: Callable[[float, float, float], float], threads: int) -> None:
    """Take waiting points until there is none."""
    optuna = _optuna()
    failures: list[Exception] = []

    def objective(trial: Any) -> float:
        point = _point(trial)
        # Another process took the last point meanwhile, or began at the same moment with the same list.
        if point is None or _taken(study, trial.number, point):
            raise optuna.TrialPruned
        for axis, value in zip(AXES, point, strict=True):
            trial.suggest_float(axis, value, value)
        try:
            score = float(evaluate(*point))
        except Exception as error:
            failures.append(error)
            raise
        # Optuna takes NaN for a failure and would hand the point out again.
        return -math.inf if math.isnan(score) else score

    def stop_when_none_waits(study: Any, _: Any) -> None:
        if not _waiting(study):
            study.stop()

    while _waiting(study):
        try:
            study.optimize(objective, n_jobs=threads, callbacks=[stop_when_none_waits])
        except (ValueError, optuna.exceptions.OptunaError):
            # SQLite, which cannot lock a row, now and then hands a trial to two processes; the later result is refused.
            if failures:
                raise


def _taken(study: Any, number: int, point: Coefficients) -> bool:
    """Whether an earlier trial has the same point: of two the earlier one counts."""
    return any(trial.number < number and _point(trial) == point for trial in _live(study))


def _waiting(study: Any) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.WAITING,))


def _live(study: Any) -> list[Any]:
    """The trials of a study without those that have failed or were doubles."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name not in ("FAIL", "PRUNED")]


def _point(trial: Any) -> Any:
    """The coefficients of a trial, None if it is not one of ours."""
    values = [trial.user_attrs.get(axis) for axis in AXES]
    return None if None in values else Coefficients(*values)
