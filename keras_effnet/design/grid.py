"""Step 1 of compound scaling: a grid search for alpha, beta and gamma at phi = 1 (arXiv:1905.11946, section 4)."""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

from keras_effnet.errors import Range
from keras_effnet.scaling import Coefficients, CompoundScaling, flops_ratio

Evaluate = Callable[[float, float, float], float]


@dataclass(frozen=True)
class Trial:
    """One point of the grid and its score. The highest score is the best, and NaN is never the best."""

    coefficients: Coefficients
    score: float


@dataclass(frozen=True)
class GridSearch:
    """The result of a grid search.

    Args:
        trials: all evaluated points, in the order of the grid.
        best: the trial with the highest score; the first one if several are equal.
        scaling: Equation 3 with the best coefficients.
        pending: number of points that other processes are still evaluating; 0 without a shared Optuna study.
    """

    trials: tuple[Trial, ...]
    best: Trial
    scaling: CompoundScaling
    pending: int = 0


def grid_search(
    evaluate: Evaluate,
    *,
    step: float = 0.05,
    tolerance: float = 0.1,
    budget: float = 2.0,
    workers: int | Executor = 1,
    study: Any = None,
    storage: Any = None,
    study_name: str = "grid-search",
) -> GridSearch:
    """Score all (depth, width, resolution) coefficients that double the FLOPS of a baseline, and find the best.

    Args:
        evaluate: `evaluate(depth, width, resolution)` returns a score, higher is better, such as the accuracy of the
            scaled baseline after training.
        step: distance between points along each axis, starting at 1.
        tolerance: largest absolute difference between alpha * beta^2 * gamma^2 and the budget.
        budget: wanted growth of FLOPS.
        workers: number of threads; or an executor such as a `ProcessPoolExecutor`, for which `evaluate` must be
            picklable.
        study: an Optuna study that distributes the points over any number of processes.
        storage: an Optuna storage or its URL, such as "sqlite:///search.db", which keeps the results. The study
            `study_name` in it is created, or resumed if it exists.
        study_name: name of the study in `storage`.

    Raises:
        ValueError: the grid has no points, all scores are NaN, or an executor was passed together with a study.
        ImportError: `study` or `storage` is used without Optuna.

    Example:
        >>> grid_search(lambda depth, width, resolution: depth, step=0.25).best.coefficients
        Coefficients(depth=2.0, width=1.0, resolution=1.0)
    """
    points = candidates(step=step, tolerance=tolerance, budget=budget)
    pending = 0
    if study is None and storage is None:
        scores = dict(_in_parallel(evaluate, points, workers))
    else:
        if not isinstance(workers, int):
            raise ValueError(
                f"workers is {workers!r}, together with an Optuna study. Expected a number of threads. To use several "
                "processes, let each of them call grid_search with the same study or storage."
            )
        from keras_effnet.design.shared_grid import open_study, share

        scores, pending = share(study or open_study(storage, study_name), points, evaluate, workers)
    trials = tuple(Trial(point, scores[point]) for point in points if point in scores)
    ranked = [trial for trial in trials if not math.isnan(trial.score)]
    if not ranked:
        raise ValueError(
            f"None of the {len(points)} points has a score other than NaN ({pending} are still being evaluated by "
            "other processes). Expected at least one score. Check evaluate, or call again when the others are done."
        )
    best = max(ranked, key=lambda trial: trial.score)
    scaling = CompoundScaling(*best.coefficients, budget=budget, tolerance=tolerance)
    return GridSearch(trials, best, scaling, pending)


def candidates(*, step: float = 0.05, tolerance: float = 0.1, budget: float = 2.0) -> tuple[Coefficients, ...]:
    """List the grid: all (alpha, beta, gamma) of at least 1 with alpha * beta^2 * gamma^2 within the tolerance.

    Raises:
        ValueError: an argument is out of range, or the grid has no points.

    Example:
        >>> Coefficients(1.2, 1.1, 1.15) in candidates(step=0.05)
        True
    """
    Range(above=0).check("step", step)
    Range(least=0).check("tolerance", tolerance)
    Range(least=1).check("budget", budget)

    def axis(limit: float) -> list[float]:
        # Rounded, so that 1 + 3 * 0.05 is exactly 1.15, also when it is read back from a study.
        return [round(1 + i * step, 10) for i in range(int((limit - 1) / step + 1e-9) + 1)]

    found = []
    most = budget + tolerance
    for alpha in axis(most):
        for beta in axis(math.sqrt(most / alpha)):
            for gamma in axis(math.sqrt(most / alpha) / beta):
                if abs(flops_ratio(alpha, beta, gamma) - budget) <= tolerance:
                    found.append(Coefficients(alpha, beta, gamma))
    if not found:
        raise ValueError(
            f"No point with step {step} has alpha * beta^2 * gamma^2 within {tolerance} of {budget}. Expected at least "
            "one. Pass a smaller step or a larger tolerance."
        )
    return tuple(found)


def _in_parallel(
    evaluate: Evaluate, points: Sequence[Coefficients], workers: int | Executor
) -> Iterator[tuple[Coefficients, float]]:
    """Yield results in order of completion; the first error cancels the points that have not started."""
    if workers == 1:
        yield from ((point, float(evaluate(*point))) for point in points)
        return
    pool = ThreadPoolExecutor(workers) if isinstance(workers, int) else workers
    futures = {pool.submit(evaluate, *point): point for point in points}
    try:
        for future in as_completed(futures):
            yield futures[future], float(future.result())
    finally:
        for future in futures:
            future.cancel()
        if pool is not workers:
            pool.shutdown()
