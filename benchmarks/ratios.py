"""What fcnn is to reach beside the others, and what it got, from the figures of a run.

Every target is a ratio, fcnn's figure over another's of the same run: absolute times are another machine's.
"""

from __future__ import annotations

from dataclasses import dataclass

from timing import significant
from workloads import NETWORKS, TORCH, TORCH_ON_GPU

TRAINED = tuple(NETWORKS)
PYTORCH = (*TORCH, *TORCH_ON_GPU)


@dataclass(frozen=True)
class Target:
    """At most `limit` for fcnn's figure over the smallest of `against`.

    `kind` says which figure: "ms" of the measures whose name ends in `ending`, "compile_s" likewise, or a "memory".
    With `own` it is over fcnn's own measure of that name.
    """

    name: str
    case: str
    limit: float
    against: tuple[str, ...] = ("fcnn",)
    ending: str = "step"
    kind: str = "ms"
    own: str | None = None


TARGETS = (
    *(Target("time", case, limit, PYTORCH) for case, limit in zip(TRAINED, (0.6, 0.9, 1.0), strict=True)),
    *(Target("time", case, 0.4, ("flax",)) for case in TRAINED),
    *(Target("time per step in a loop", case, 1.05, ending="scan", own="step") for case in TRAINED),
    Target("time", "max_pool", 1.2, PYTORCH, ending="forward and gradient"),
    Target("time", "depthwise", 1.5, PYTORCH, ending=": forward"),
    Target("time", "depthwise", 1.5, PYTORCH, ending=": kernel gradient"),
    Target("time", "depthwise", 1.5, PYTORCH, ending=": input gradient"),
    Target("time", "depthwise", 1.5, PYTORCH, ending="forward and gradients"),
    Target("time", "per_example", 0.3, ("flax",), ending="gradients"),
    *(Target("compile time", case, 1.5, ("flax",), kind="compile_s") for case in TRAINED),
    *(Target("peak memory", case, 1.2, PYTORCH, kind="peak_mb") for case in TRAINED),
    *(Target("peak memory over start", case, 1.2, PYTORCH, kind="peak_over_start_mb") for case in TRAINED),
)


def ratios(cases):
    """One entry for each target and measure that the run has both sides of.

    Args:
        cases: {case: {library: {"ms": {measure: summary}, "compile_s": likewise, "memory": {name: summary}}}}.

    Returns:
        Dicts of name, case, measure, against (the library that was best), of (another measure, where it is fcnn's
        own), fcnn's and its figure, the ratio of the fastest, the ratio of the medians, the target, and whether the
        ratio of the fastest reaches it.
    """
    found = []
    for target in TARGETS:
        libraries = cases.get(target.case, {})
        ours = figures(libraries.get("fcnn", {}), target)
        for measure, value in ours.items():
            present = [name for name in target.against if name in libraries]
            other = {name: figures(libraries[name], target, own=True) for name in present}
            sought = measure if target.own is None else target.own
            known = {name: theirs[sought] for name, theirs in other.items() if sought in theirs}
            if not known:
                continue
            best = min(known, key=lambda name: known[name]["fastest"])
            ratio = value["fastest"] / known[best]["fastest"]
            best_median = min(summary["median"] for summary in known.values())
            found.append(
                {
                    "name": target.name,
                    "case": target.case,
                    "measure": measure,
                    "against": best,
                    "of": target.own,
                    "fcnn": value["fastest"],
                    "other": known[best]["fastest"],
                    "ratio": significant(ratio, 3),
                    "ratio_of_medians": significant(value["median"] / best_median, 3),
                    "target": target.limit,
                    "reached": ratio <= target.limit,
                }
            )
    return found


def figures(library, target, own=False):
    """The figures of a library that a target is about, by measure; with own all of that kind."""
    if target.kind in ("ms", "compile_s"):
        return {m: s for m, s in library.get(target.kind, {}).items() if own or m.endswith(target.ending)}
    memory = library.get("memory", {})
    if "device_peak_mb" not in memory:
        return {target.kind: memory[target.kind]} if target.kind in memory else {}
    # with an accelerator it is its memory that runs out, and it holds nothing before the start
    return {"device_peak_mb": memory["device_peak_mb"]} if target.kind == "peak_mb" else {}
