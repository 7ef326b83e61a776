"""Which of the searched fields the loss depended on: functional ANOVA (Hutter, Hoos and Leyton-Brown 2014).

A random forest predicts the loss over the space; the importance of a field is the share of that prediction's variance
that it explains by itself, whatever the others are. With few trials it says little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from bitcorn_ray.tuning.search import distribution_of, drawn_of, quiet_optuna
from bitcorn_ray.tuning.space import Point, Space, point_key

_LEAST = 8  # trials, below which a forest sees nothing
_TREES = 64


def search_importance(space: Space, tried: Sequence[tuple[Point, float | None]], *, seed: int = 0) -> dict[str, float]:
    """Share of the loss's variance by field; empty where fewer than eight trials, or all alike, tell nothing.

    tried: points, and the loss of each; None, or what is not finite, is passed over. seed: of the forest.
    """
    optuna = quiet_optuna()
    known = {point_key(point): (point, loss) for point, loss in tried if loss is not None and math.isfinite(loss)}
    varied = [each for each in space.dimensions if len({point_key({"": p[each.name]}) for p, _ in known.values()}) > 1]
    if len(known) < _LEAST or not varied or len({loss for _, loss in known.values()}) < 2:
        return {}
    study = optuna.create_study()
    distributions = {each.name: distribution_of(each) for each in varied}
    for point, loss in known.values():
        drawn = {each.name: drawn_of(each, point[each.name]) for each in varied}
        study.add_trial(optuna.trial.create_trial(params=drawn, distributions=distributions, value=loss))
    forest = optuna.importance.FanovaImportanceEvaluator(n_trees=_TREES, seed=seed)
    return {name: float(share) for name, share in forest.evaluate(study).items()}
