"""Which values of a metric are the better ones."""

from __future__ import annotations

import re
from typing import Literal

from dstack.model.metrics.series import MetricPoint, MetricSummary

Goal = Literal["minimize", "maximize"]

LESS = re.compile(r"loss|err|perplexity|ppl|[mr]?mse|mae|mape|wer|cer|fid|bpc|logloss|nll|distance")
MORE = re.compile(
    r"acc|auc|f1|score|precision|recall|bleu|rouge|iou|map|r2|reward|return|mfu|psnr|ssim|throughput|kappa|ndcg|mrr"
)


def goal_of(name: str) -> Goal | None:
    """Return the goal that a metric's name tells, None if it tells none: `lr` is neither good nor bad."""
    words = re.split(r"[^a-z0-9]+", re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower())
    for word in reversed(words):
        if LESS.match(word) or word.endswith("loss"):
            return "minimize"
        if MORE.match(word):
            return "maximize"
    return None


def best(summary: MetricSummary, goal: Goal | None = None) -> MetricPoint | None:
    """Return the best point by a goal, or else by the metric's name; None if neither says what is best."""
    chosen = goal or goal_of(summary.name)
    if chosen is None:
        return None
    return summary.min if chosen == "minimize" else summary.max
