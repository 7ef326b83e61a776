"""The leaderboard of a sweep: trials compared on test folds, with tests that count every trial.

1. A sweep answers questions, such as "is volatility predictable?". Each question has, for every window and trial, a
   loss and a score (see `signal`), and the loss of every baseline.
2. Skill is found if the best score is significantly above the best of as many uninformed trials, by the test of
   superior predictive ability (see `selection`), which counts all trials. A question can also require that some trial
   beats the loss of every naive baseline by the same test.
3. Skill need not be useful: the same test gives the baselines that the best trial beats in loss.
4. p-values are multiplied by the number of questions (Bonferroni), so that the level holds for the whole verdict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitcorn_ray.errors import BitcornError
from bitcorn_ray.metrics.hac import MeanTest
from bitcorn_ray.metrics.selection import (
    Overfitting,
    RankStability,
    Superiority,
    backtest_overfitting,
    fill_stopped,
    fold_means,
    rank_stability,
    superior_ability,
)

Array = NDArray[np.floating]
Float = NDArray[np.float64]

_MOST_REPS = 100_000


@dataclass(frozen=True, kw_only=True, eq=False)
class TrialComparison:
    """The losses and scores of all trials for one question. Rows are windows of the test folds in time order.

    name: what is forecast, such as "volatility". loss: name of the loss, such as "QLIKE". losses: (N, K), lower is
    better, NaN after a trial was stopped. score: name of the mean score, such as "rank correlation". scores: (N, K),
    whose mean is zero for an uninformed trial; NaN as in losses. baselines: losses (N,) by name, fitted on all bars
    before each test range; otherwise a trial may win because it read more bars.
    naive_baselines: names of the uninformed baselines that must be beaten, for direction the two constant signs. Scores
    alone would flatter forecasts of reversals, because any price lies around its mean over the same windows.
    folds: (N,) number of each row's fold. horizon: rows that the longest label spans.
    With several partitions, rows are times, and losses and scores their means (`hac.average_by_instant`).
    """

    name: str
    loss: str
    losses: Float
    score: str
    scores: Float
    baselines: Mapping[str, Float]
    folds: NDArray[np.int64]
    horizon: int
    naive_baselines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.losses.ndim != 2 or self.losses.shape != self.scores.shape:
            raise BitcornError(
                f"{self.name}: losses {self.losses.shape} and scores {self.scores.shape} must both be windows x trials"
            )
        lengths = {len(self.losses), len(self.folds), *(len(losses) for losses in self.baselines.values())}
        if len(lengths) > 1:
            raise BitcornError(
                f"{self.name}: losses, folds and baselines have {sorted(lengths)} rows: give equal numbers"
            )
        if unknown := sorted(set(self.naive_baselines) - set(self.baselines)):
            raise BitcornError(
                f"{self.name}: there is no naive baseline {', '.join(unknown)} among the baselines "
                f"{', '.join(self.baselines) or '(none)'}"
            )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """The rank of one trial.

    rank: 1 is best. folds: mean loss of each fold, None after the trial was stopped. mean, score: over all windows; the
    windows of a stopped trial are filled in (`selection.fill_stopped`). standard_error: of the mean over folds, from
    their differences; None with one fold. against: difference from each baseline, positive if the trial is better, with
    p-values that count this trial alone.
    """

    trial: str
    rank: int
    folds: tuple[float | None, ...]
    mean: float
    score: float
    standard_error: float | None
    against: dict[str, MeanTest]


@dataclass(frozen=True, kw_only=True)
class TrialComparisonResult:
    """The answer to one question.

    found: True if some trial has skill at the level; None with too few windows. p_value: of this result if no trial had
    skill. score_p_value: of the best score alone. Both are None with `found`. best_score: the highest mean score.
    superiority: p-value of the trial with the lowest mean loss against each baseline; empty with too few windows.
    better_than: baselines that it beats at the level. beaten_by_none: baselines that no trial beats. All p-values count
    all trials and questions.
    baselines: their mean losses. standings: all trials, the best first. in_words: the text of the answer.
    """

    name: str
    loss: str
    score: str
    found: bool | None
    p_value: float | None
    score_p_value: float | None
    best_score: float
    superiority: dict[str, float]
    better_than: tuple[str, ...]
    beaten_by_none: tuple[str, ...]
    baselines: dict[str, float]
    overfitting: Overfitting | None
    ranks: RankStability | None
    standings: tuple[Standing, ...]
    in_words: str


@dataclass(frozen=True, kw_only=True)
class Leaderboard:
    """The answers to all questions, and the verdict: a line on the comparison, on each question, and on overfitting.

    tried: trials that count, including failed and stopped ones. compared: trials with losses. folds, windows: of the
    tests. found: names of the questions with skill.
    """

    tried: int
    compared: int
    folds: int
    windows: int
    level: float
    found: tuple[str, ...]
    answers: tuple[TrialComparisonResult, ...]
    verdict: str


def leaderboard(
    questions: Sequence[TrialComparison],
    trials: Sequence[str],
    tried: int | None = None,
    level: float = 0.01,
    reps: int = 2_000,
    seed: int = 0,
) -> Leaderboard:
    """Return the comparison of trials, which are the names of the K columns of losses.

    tried: number of all trials, including failed ones and earlier generations; K by default. level: of the whole
    verdict. reps, seed: of the bootstrap. Its smallest p-value grows with the number of questions and of trials beyond
    these K; samples are added so that it stays below a quarter of the level.
    Raises BitcornError without questions, if trials and losses differ in number, and as `superior_ability` does.
    """
    tried = len(trials) if tried is None else tried
    if not questions or not 0 < level < 1:
        raise BitcornError(
            f"{len(questions)} questions at a level of {level}: give at least one, and a level in (0, 1)"
        )
    for question in questions:
        if question.losses.shape[1] != len(trials):
            raise BitcornError(
                f"{question.name}: losses have shape {question.losses.shape}, not one column for each of "
                f"{len(trials)} trials"
            )
    reps = max(reps, min(_MOST_REPS, math.ceil(4 * len(questions) * tried / len(trials) / level)))
    answers = tuple(_answer(question, trials, tried, level, len(questions), reps, seed) for question in questions)
    first = questions[0]
    return Leaderboard(
        tried=tried,
        compared=len(trials),
        folds=len(np.unique(first.folds)),
        windows=len(first.folds),
        level=level,
        found=tuple(answer.name for answer in answers if answer.found),
        answers=answers,
        verdict=_verdict(answers, first, tried),
    )


def _answer(
    question: TrialComparison, trials: Sequence[str], tried: int, level: float, questions: int, reps: int, seed: int
) -> TrialComparisonResult:
    losses, scores = fill_stopped(question.losses), fill_stopped(question.scores)
    signal = superior_ability(np.zeros(len(scores)), -scores, question.horizon, tried, reps, seed)
    tests = {
        name: superior_ability(baseline, losses, question.horizon, tried, reps, seed)
        for name, baseline in question.baselines.items()
    }
    of_best = {name: min(1.0, questions * test.p_best) for name, test in tests.items() if test.p_best is not None}
    of_any = {name: min(1.0, questions * test.p_value) for name, test in tests.items() if test.p_value is not None}
    by_score = None if signal.p_value is None else min(1.0, questions * signal.p_value)
    p_value = None if by_score is None else max(by_score, *(of_any[name] for name in question.naive_baselines), 0.0)
    answer = TrialComparisonResult(
        name=question.name,
        loss=question.loss,
        score=question.score,
        found=None if p_value is None else p_value <= level,
        p_value=p_value,
        score_p_value=by_score,
        best_score=float(scores.mean(0).max()),
        superiority=of_best,
        better_than=tuple(name for name, p in of_best.items() if p <= level),
        beaten_by_none=tuple(name for name, p in of_any.items() if p > level),
        baselines={name: float(np.mean(baseline)) for name, baseline in question.baselines.items()},
        overfitting=None if p_value is None else backtest_overfitting(losses, question.horizon),
        ranks=rank_stability(fold_means(losses, question.folds)),
        standings=_standings(question, losses, scores, trials, tests),
        in_words="",
    )
    return replace(answer, in_words=_in_words(answer, tried, level))


def _standings(
    question: TrialComparison, losses: Float, scores: Float, trials: Sequence[str], tests: Mapping[str, Superiority]
) -> tuple[Standing, ...]:
    raw, filled = fold_means(question.losses, question.folds), fold_means(losses, question.folds)
    means, folds = losses.mean(0), len(raw)
    errors = filled.std(0, ddof=1) / np.sqrt(folds) if folds > 1 else None
    return tuple(
        Standing(
            trial=trials[k],
            rank=index + 1,
            folds=tuple(None if np.isnan(mean) else float(mean) for mean in raw[:, k]),
            mean=float(means[k]),
            score=float(scores[:, k].mean()),
            standard_error=None if errors is None else float(errors[k]),
            against={name: test.differences[k] for name, test in tests.items()},
        )
        for index, k in enumerate(np.argsort(means, kind="stable"))
    )


def _in_words(answer: TrialComparisonResult, tried: int, level: float) -> str:
    if answer.found is None:
        return f"{answer.name}: cannot be told, as the test windows are too few: test on more bars."
    score = f"({answer.score} of the best {answer.best_score:.3f}, p = {answer.score_p_value:.2g})"
    if answer.found:
        result = f"found at {100 * level:g} %, as forecasts go along with what happened {score}"
    elif answer.score_p_value is not None and answer.score_p_value <= level:
        result = (
            f"nothing found, as forecasts that go along with what happened {score} do not beat all that know nothing"
        )
    else:
        result = f"nothing found, as no forecasts go along with what happened {score}"
    return " ".join([f"{answer.name}: {result}.", *_beaten(answer, tried)])


def _beaten(answer: TrialComparisonResult, tried: int) -> Iterator[str]:
    """Yield sentences on the baselines that the trials beat in loss."""

    def shown(names: Iterable[str], word: str) -> str:
        listed = [f"{name} (p = {answer.superiority[name]:.2g})" for name in names]
        return listed[0] if len(listed) == 1 else f"{', '.join(listed[:-1])} {word} {listed[-1]}"

    best = f"trial {answer.standings[0].trial}" + (f", the best of {tried:,}," if tried > 1 else "")
    others = [n for n in answer.superiority if n not in answer.better_than and n not in answer.beaten_by_none]
    parts = []
    if answer.better_than:
        parts.append(f"{best} beats {shown(answer.better_than, 'and')}")
    if others:
        parts.append(f"{best} doesn't beat {shown(others, 'or')}, though another does")
    if answer.beaten_by_none:
        alone = "it doesn't beat" if parts else f"{best} doesn't beat"
        none = f"none of these {tried:,} trials beats" if tried > 1 else alone
        parts.append(f"{none} {shown(answer.beaten_by_none, 'or')}")
    if parts:
        yield f"In {answer.loss}, {', but '.join(parts)}."


def _verdict(answers: Sequence[TrialComparisonResult], first: TrialComparison, tried: int) -> str:
    folds = len(np.unique(first.folds))
    opening = (
        f"{tried:,} trial{'s' * (tried != 1)} on {folds} test fold{'s' * (folds != 1)} of {len(first.folds):,} windows "
        "together, all trials counted."
    )
    if not any(answer.found for answer in answers):
        opening += " Nothing found." if all(answer.found is False for answer in answers) else " Nothing could be found."
    sentences = [opening, *(answer.in_words[0].upper() + answer.in_words[1:] for answer in answers)]
    overfit = answers[0].overfitting
    if overfit is not None:
        sentences.append(
            f"The trial that is best in {answers[0].name} in one half of these windows is below the median in the "
            f"other half in {100 * overfit.probability:.0f} % of cases (probability of backtest overfitting; 50 % is "
            "pure luck)."
        )
    return "\n".join(sentences)
