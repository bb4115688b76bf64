"""From maps of scores to detections, and what they are worth: peaks, hits, average precision, false alarms.

The same for pictures and for sound: a place is a point with one coordinate for each axis that was scanned.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np


class Found(NamedTuple):
    """Detections of one class in one picture or recording, the surest first.

    Attributes:
        scores: (detections,).
        places: (detections, axes).
    """

    scores: np.ndarray
    places: np.ndarray


class Judged(NamedTuple):
    """Detections of one class, held against the truth.

    Attributes:
        scores: (detections,).
        right: whether each is a hit, (detections,).
        off: how far each hit is from the truth, (detections,); NaN for the others.
        positives: how many there were to be found.
    """

    scores: np.ndarray
    right: np.ndarray
    off: np.ndarray
    positives: int


def log_odds(logits: jax.Array) -> jax.Array:
    """The log of p / (1 - p) for each class of a softmax over the last axis; it keeps its order where p rounds to 1."""
    own = jnp.eye(logits.shape[-1], dtype=bool)
    others = jnp.where(own, -jnp.inf, logits[..., None, :])
    return logits - jax.nn.logsumexp(others, axis=-1)


def peaks(scores: np.ndarray, *, first: float, step: float, radius: float, blur: float, least: float = -5.0) -> Found:
    """Find the peaks of a map, and leave out what is near a higher one (non-maximum suppression).

    A peak is often a plateau. Its place is the mean over what is near, weighted by probability.

    Args:
        scores: log odds (*positions).
        first: the place of position 0, along each axis.
        step: from a position to the next.
        radius: of two peaks nearer than this, only the higher one counts.
        blur: how far the mean reaches.
        least: lower scores are no detections.

    Returns:
        The detections.
    """
    around = np.lib.stride_tricks.sliding_window_view(np.pad(scores, 1, constant_values=-np.inf), (3,) * scores.ndim)
    summits = (scores > least) & (scores >= around.max(tuple(range(scores.ndim, 2 * scores.ndim))))
    positions = np.argwhere(summits)
    heights = scores[summits]
    order = np.argsort(-heights, kind="stable")
    positions, heights = positions[order], heights[order]
    kept, free = [], np.ones(len(positions), bool)
    while free.any():
        kept.append(int(free.argmax()))
        free &= step * np.linalg.norm(positions - positions[kept[-1]], axis=1) >= radius
    reach = np.mgrid[(slice(-int(blur / step), int(blur / step) + 1),) * scores.ndim].reshape(scores.ndim, -1).T
    reach = reach[step * np.linalg.norm(reach, axis=1) <= blur]
    places = [first + step * _mean_position(scores, position + reach) for position in positions[kept]]
    return Found(heights[kept], np.array(places).reshape(-1, scores.ndim))


def _mean_position(scores: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The mean of those positions that are on the map, weighted by probability."""
    positions = positions[((positions >= 0) & (positions < scores.shape)).all(1)]
    return np.average(positions, axis=0, weights=1 / (1 + np.exp(-scores[tuple(positions.T)])))


def surest(found: Sequence[Found], radius: float) -> list[Found]:
    """Leave out what is near a surer detection of another class, for things that cannot be in one place.

    Args:
        found: the detections of each class in one picture or recording.
        radius: nearer than this, only the surer one counts.

    Returns:
        The detections of each class that are left.
    """
    scores, places = (np.concatenate([getattr(f, name) for f in found]) for name in ("scores", "places"))
    kept, free = np.zeros(len(scores), bool), np.ones(len(scores), bool)
    for top in np.argsort(-scores, kind="stable"):
        if free[top]:
            kept[top] = True
            free &= np.linalg.norm(places - places[top], axis=1) >= radius
    ends = np.cumsum([len(f.scores) for f in found])[:-1]
    parts = zip(np.split(scores, ends), np.split(places, ends), np.split(kept, ends), strict=True)
    return [Found(s[k], p[k]) for s, p, k in parts]


def judge(found: Sequence[Found], truth: Sequence[np.ndarray], close: float) -> Judged:
    """Say which detections are right: each thing is found once, by the surest detection that is close to it.

    Args:
        found: detections of one class in each picture or recording.
        truth: the places of what is there of this class in each, (things, axes).
        close: how far off a hit may be.

    Returns:
        The judgement over all of them.
    """
    rows = []
    for detections, things in zip(found, truth, strict=True):
        distances = np.linalg.norm(detections.places[:, None] - things, axis=-1)  # (detections, things)
        for score, distance in zip(detections.scores, distances, strict=True):
            nearest = int(distance.argmin()) if len(distance) else None
            if nearest is None or distance[nearest] > close:
                rows.append((score, False, np.nan))
            else:
                rows.append((score, True, distance[nearest]))
                distances[:, nearest] = np.inf  # found; a second detection of it is a false alarm
    scores, right, off = np.array(rows).reshape(-1, 3).T
    return Judged(scores, right.astype(bool), off, sum(map(len, truth)))


def average_precision(judged: Judged) -> float:
    """Area under precision over recall, where the precision at a recall is the best at it or any higher one.

    Equal scores count together.

    Args:
        judged: the detections of one class.

    Returns:
        From 0 to 1.

    Source:
        Everingham et al., "The Pascal visual object classes challenge: a retrospective", 2015 (all points).
    """
    _, hits, alarms = curve(judged)
    precision = hits / np.maximum(hits + alarms, 1)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.sum(np.diff(hits, prepend=0) * best) / judged.positives)


def curve(judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Thresholds from high to low, and the number of hits and of false alarms with scores at or above each."""
    order = np.argsort(-judged.scores, kind="stable")
    scores, right = judged.scores[order], judged.right[order]
    last = np.append(np.diff(scores) != 0, True)[: len(scores)]  # of equal scores the last
    return scores[last], np.cumsum(right)[last], np.cumsum(~right)[last]


def pooled(judged: Sequence[Judged]) -> Judged:
    """The detections of several classes as one."""
    scores, right, off = (np.concatenate([getattr(j, name) for j in judged]) for name in ("scores", "right", "off"))
    return Judged(scores, right, off, sum(j.positives for j in judged))


def hits_at(judged: Judged, alarms: float) -> float:
    """The share of things found, with the threshold as low as it can be with at most so many false alarms."""
    _, hits, false = curve(judged)
    return float(hits[false <= alarms].max(initial=0) / judged.positives)


def mean_off(judged: Judged) -> float | None:
    """How far the hits with a probability above one half are from the truth; None where there are none."""
    off = judged.off[judged.right & (judged.scores > 0)]
    return float(off.mean()) if len(off) else None


def mean_and_sd(values: Sequence[float | None]) -> dict[str, object]:
    """Mean and standard deviation over seeds, for a result; None is left out."""
    known = [value for value in values if value is not None]
    mean, std = (float(np.mean(known)), float(np.std(known))) if known else (None, None)
    return {"mean": mean, "std": std, "n": len(known), "each": list(values)}
