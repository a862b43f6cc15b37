"""A grid search on several processes and machines: Optuna distributes the points (extra `search`)."""

import math
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from keras_effnet.errors import first_line, require_packages
from keras_effnet.scaling import Coefficients

AXES = Coefficients._fields
HEARTBEAT_SECONDS = 60


def _optuna() -> Any:
    require_packages("A search with a study or a storage", "optuna", otherwise="or run a grid search with workers=")
    import optuna

    return optuna


def check_database(url: str) -> None:
    """Check the URL of a database without opening it.

    Raises:
        ValueError: it is not a URL, its kind is unknown or needs a driver, or the folder of an SQLite file is missing.
    """
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import SQLAlchemyError

    expected = "Expected the URL of a database, such as sqlite:///search.db, in an existing folder."
    try:
        parsed = make_url(url)
        parsed.get_dialect().import_dbapi()
    except (ImportError, SQLAlchemyError) as error:
        raise ValueError(f"storage is {url!r}: {first_line(error)}. {expected}") from error
    file = parsed.database
    if parsed.get_backend_name() == "sqlite" and file and not Path(file).absolute().parent.is_dir():
        raise ValueError(f"storage is {url!r}, and its folder does not exist. {expected}")


def open_study(storage: Any, name: str) -> Any:
    """Create the study of this name in an Optuna storage (or its URL), or open it if it exists."""
    optuna = _optuna()
    if isinstance(storage, str):
        storage = _open_database(storage)
    return optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)


def _open_database(url: str) -> Any:
    """Open a database with a heartbeat, so that the points of a process that died are distributed again."""
    from sqlalchemy.exc import SQLAlchemyError

    optuna = _optuna()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        for wait in (0.2, 0.4, 0.8, 1.6):
            try:
                return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS)
            except SQLAlchemyError:
                # Another process is creating the tables at the same moment: try again.
                time.sleep(wait)
        return optuna.storages.RDBStorage(url, heartbeat_interval=HEARTBEAT_SECONDS)


def share(
    study: Any, points: Sequence[Coefficients], evaluate: Callable[[float, float, float], float], threads: int
) -> tuple[dict[Coefficients, float], int]:
    """Evaluate the remaining points, together with the other processes that work on the study.

    Returns:
        The scores known at the end, and the number of points that other processes have not finished.
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
    """Evaluate waiting points until none is left."""
    optuna = _optuna()
    failures: list[Exception] = []

    def objective(trial: Any) -> float:
        point = _point(trial)
        # Another process has taken the last point, or has enqueued the same points at the same moment.
        if point is None or _taken(study, trial.number, point):
            raise optuna.TrialPruned
        for axis, value in zip(AXES, point, strict=True):
            trial.suggest_float(axis, value, value)
        try:
            score = float(evaluate(*point))
        except Exception as error:
            failures.append(error)
            raise
        # Optuna treats NaN as a failure, and would distribute the point again.
        return -math.inf if math.isnan(score) else score

    def stop_when_none_waits(study: Any, _: Any) -> None:
        if not _waiting(study):
            study.stop()

    while _waiting(study):
        try:
            study.optimize(objective, n_jobs=threads, callbacks=[stop_when_none_waits])
        except (ValueError, optuna.exceptions.OptunaError):
            # SQLite cannot lock rows: sometimes two processes get the same trial, and the later result is rejected.
            if failures:
                raise


def _taken(study: Any, number: int, point: Coefficients) -> bool:
    """Whether an earlier trial has the same point; only the earliest one counts."""
    return any(trial.number < number and _point(trial) == point for trial in _live(study))


def _waiting(study: Any) -> list[Any]:
    return study.get_trials(deepcopy=False, states=(_optuna().trial.TrialState.WAITING,))


def _live(study: Any) -> list[Any]:
    """The trials of a study, without failed ones and duplicates."""
    return [trial for trial in study.get_trials(deepcopy=False) if trial.state.name not in ("FAIL", "PRUNED")]


def _point(trial: Any) -> Any:
    """The coefficients of a trial, or None if the trial is not from a grid search."""
    values = [trial.user_attrs.get(axis) for axis in AXES]
    return None if None in values else Coefficients(*values)
