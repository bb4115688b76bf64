"""Digits anywhere in large cluttered pictures, found by a detector that is trained on patches, or on whole pictures.

    python examples/find_digits.py

Two ways to a map of detections. In the first, the detector is trained on patches: a digit in the middle, or nothing.
Then ``fcnn.Scan`` applies it at every second pixel of pictures of 256 x 256. In the second, nobody says where a digit
is: training goes through the scan and a max over its positions (a logical OR), and is told only which digits are
somewhere in a picture. The places where it finds them are a by-product, and are measured all the same.

The measured result, with versions, machine, minutes and seeds, is benchmarks/results/find_digits.json: the result.json
that this command writes. Beside it the command draws what was found in a test picture.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import clutter
import compiled
import finding
import jax
import numpy as np
import optax
import report

import fcnn

STRIDE = 2  # pixels from one position of the scan to the next
CLOSE = 8  # pixels; a digit is found if a peak of its class is this near to its middle
TRAINING_PICTURES = 1500
TEST_PICTURES = 100


class Detector(NamedTuple):
    """A trained network for patches of ``window`` x ``window`` pixels, with an output for each of so many classes."""

    window: int
    classes: int
    params: Any = None
    state: Any = None

    @property
    def net(self) -> fcnn.Layer:
        """The network, for one patch."""
        return fcnn.serial(                                                            # for a window of 28:
            fcnn.Conv(16, 5, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 12, 12, 16)
            fcnn.Conv(32, 5, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 4, 4, 32)
            fcnn.Flatten(), fcnn.Dense(96, bias=False), fcnn.BatchNorm(), jax.nn.relu,     # (batch, 96)
            fcnn.Dropout(0.2), fcnn.Dense(self.classes),                                   # (batch, classes)
        )  # fmt: skip


def train_on_patches(data: fcnn.data.Dataset, seed: int, options: argparse.Namespace) -> Detector:
    """The first way: a classifier of patches, with NOTHING as the eleventh class.

    Pieces that look like digits are rare among random patches. So it is trained twice: in between, the scan finds where
    in the same pictures it sees digits that are not there (Sung and Poggio, "Example-based learning for view-based
    human face detection", 1998).
    """
    pictures = clutter.scenes(*data.train, TRAINING_PICTURES, seed=seed)
    detector = Detector(window=28, classes=11)
    x, y = clutter.patches(pictures, detector.window, seed=seed)
    for part in range(2):
        run = fcnn.fit(
            detector.net,
            (x, y),
            optimizer=optimizer(options.epochs * (len(y) // 128)),
            epochs=options.epochs,
            key=jax.random.key(2 * seed + part),
            params=detector.params,
            state=detector.state,
            progress=options.progress,
        )
        detector = detector._replace(params=run.params, state=run.state)
        if part == 0:
            wrong = seen_in_nothing(detector, pictures[: TRAINING_PICTURES // 3])
            x, y = np.concatenate([x, wrong]), np.concatenate([y, np.full(len(wrong), clutter.NOTHING, np.int32)])
    return detector


def seen_in_nothing(detector: Detector, pictures: Sequence[clutter.Scene], most: int = 48) -> np.ndarray:
    """Patches with no digit in the middle that are taken for one, the surest of each picture."""
    cut = [np.zeros((0, detector.window, detector.window, 1), np.float32)]
    for picture, odds in zip(pictures, scores(detector, pictures, stride=4), strict=True):
        best, corners = odds.max(-1).ravel(), 4 * np.indices(odds.shape[:2]).reshape(2, -1).T
        apart = np.linalg.norm(corners[:, None] + detector.window / 2 - picture.centres, axis=-1).min(1)
        wrong = np.flatnonzero((best > -2) & (apart >= clutter.NEAR))
        for i in wrong[np.argsort(-best[wrong])[:most]]:
            cut.append(clutter.at(picture.image, corners[i], detector.window)[None])
    return np.concatenate(cut)


def train_on_pictures(data: fcnn.data.Dataset, seed: int, options: argparse.Namespace) -> Detector:
    """The second way: which digits are somewhere in a picture, and no word of where.

    The window is smaller, about as large as the ink of a digit: in a larger one the ink need not be in the middle, and
    nothing would make the network put it there.
    """
    pictures = clutter.scenes(*data.train, 3 * TRAINING_PICTURES, seed=seed, size=80, digits=(1, 3))
    detector = Detector(window=24, classes=10)
    scan = fcnn.Scan(detector.net, detector.window, stride=4)  # 4 is the stride of both poolings together
    run = fcnn.fit(
        fcnn.serial(scan=scan, any=fcnn.GlobalMaxPool()),  # (batch, 15, 15, 10), (batch, 10)
        (np.stack([picture.image for picture in pictures]), contents(pictures)),
        optimizer=optimizer(3 * options.epochs * (len(pictures) // 32)),
        epochs=3 * options.epochs,
        batch_size=32,
        loss=optax.losses.sigmoid_binary_cross_entropy,
        key=jax.random.key(seed),
        progress=options.progress,
    )
    return detector._replace(params=run.params["scan"], state=run.state["scan"])


def optimizer(steps: int) -> optax.GradientTransformation:
    """AdamW, whose rate rises for a fifth of the steps and falls to nearly zero."""
    rate = optax.schedules.cosine_onecycle_schedule(steps, 4e-3, pct_start=0.2)
    return optax.adamw(rate, b2=0.99, weight_decay=0.05, mask=fcnn.training.decay_mask)


def contents(pictures: Sequence[clutter.Scene]) -> np.ndarray:
    """Which digits are in each picture, (pictures, 10) of 0 and 1."""
    return np.stack([np.isin(np.arange(10), picture.labels) for picture in pictures]).astype(np.float32)


def scores(detector: Detector, pictures: Sequence[clutter.Scene], stride: int = STRIDE) -> np.ndarray:
    """The log odds of every digit at every position, (pictures, rows, columns, 10)."""
    scan = fcnn.Scan(detector.net, detector.window, stride=stride)

    @jax.jit
    def of_one(image: jax.Array) -> jax.Array:
        logits = scan.apply(detector.params, image[None], state=detector.state)[0]
        return logits if detector.classes == 10 else finding.log_odds(logits)[..., :10]

    return np.stack([of_one(picture.image) for picture in pictures])


def peaks(odds: np.ndarray, window: int) -> finding.Found:
    """The detections of one digit in its map (rows, columns); digits do not overlap, so 12 pixels are too near."""
    return finding.peaks(odds, first=window / 2, step=STRIDE, radius=12, blur=6)


def measure(odds: np.ndarray, window: int, pictures: Sequence[clutter.Scene]) -> dict[str, Any]:
    """What the maps of log odds (pictures, rows, columns, 10) are worth."""
    found = [[peaks(of_one[..., digit], window) for of_one in odds] for digit in range(10)]
    truth = [[picture.centres[picture.labels == digit] for picture in pictures] for digit in range(10)]
    judged = [finding.judge(f, t, CLOSE) for f, t in zip(found, truth, strict=True)]
    loosely = [finding.judge(f, t, 14) for f, t in zip(found, truth, strict=True)]  # half a digit's square
    anywhere = [  # the max over the positions: is this digit somewhere in the picture?
        finding.Judged(most, there > 0, np.zeros(len(there)), int(there.sum()))
        for most, there in zip(odds.max((1, 2)).T, contents(pictures).T, strict=True)
    ]
    precision = {f"average_precision_of_{i}": finding.average_precision(j) for i, j in enumerate(judged)}
    return {
        "average_precision": float(np.mean(list(precision.values()))),
        **precision,
        "average_precision_within_14_pixels": float(np.mean([finding.average_precision(j) for j in loosely])),
        "centre_error_pixels": finding.mean_off(finding.pooled(judged)),
        "picture_average_precision": float(np.mean([finding.average_precision(j) for j in anywhere])),
    }


def draw(picture: clutter.Scene, odds: np.ndarray, window: int, path: Any) -> None:
    """Draw a picture with what was found in it, and the highest probability of any digit at every position."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 5.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(picture.image[..., 0], cmap="gray_r")
    for digit in range(10):
        for score, (row, column) in zip(*peaks(odds[..., digit], window), strict=True):
            if score > 0:
                near = np.linalg.norm(picture.centres - (row, column), axis=1) <= CLOSE
                colour = "tab:green" if digit in picture.labels[near] else "tab:red"
                left.plot(column, row, "s", markersize=28, markerfacecolor="none", markeredgecolor=colour)
                left.text(column + 13, row - 12, digit, color=colour, fontsize=12, fontweight="bold")
    left.set_title(f"found (green: right, red: wrong); {len(picture.labels)} digits are there")
    probability = 1 / (1 + np.exp(-odds.max(-1)))
    edge, size = window / 2, len(picture.image)
    end = edge + STRIDE * (len(odds) - 1)
    shown = right.imshow(probability, vmin=0, vmax=1, cmap="magma", extent=(edge, end, end, edge))
    right.set(xlim=(0, size), ylim=(size, 0), title="the highest probability of any digit at every position")
    figure.colorbar(shown, ax=right, shrink=0.8)
    figure.savefig(path, dpi=100)


WAYS = {"patches": train_on_patches, "pictures": train_on_pictures}


def main() -> int:
    """Train both ways from every seed, measure on pictures of test digits, write and draw."""
    options = report.read_options(__doc__, epochs=3, out="runs/find_digits")
    try:
        data = fcnn.data.mnist()
    except (FileNotFoundError, ValueError) as error:
        print(f"cannot read the data: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    test = clutter.scenes(*data.test, TEST_PICTURES, seed=1_000_000)
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for seed in range(options.seeds):
        for way, train in WAYS.items():
            begun = time.perf_counter()
            detector = train(data, seed, options)
            trained = time.perf_counter()
            odds = scores(detector, test)
            scanned = time.perf_counter()
            seconds = {"training_seconds": trained - begun, "scan_seconds_per_picture": (scanned - trained) / len(test)}
            found = results[way]
            found.append({**measure(odds, detector.window, test), **seconds})
            print(
                f"trained on {way}, seed {seed}: average precision {found[-1]['average_precision']:.3f}, "
                f"{(scanned - begun) / 60:.1f} minutes",
                flush=True,
            )
            draw(test[0], odds[0], detector.window, options.out / f"found_{way}.png")
    result = {
        "data": "mnist",
        "seeds": list(range(options.seeds)),
        "trained_on": {
            way: {name: finding.mean_and_sd([r[name] for r in runs]) for name in runs[0]}
            for way, runs in results.items()
        },
        "test": {
            "pictures": len(test),
            "side": len(test[0].image),
            "digits": sum(len(picture.labels) for picture in test),
            "stride": STRIDE,
            "close": CLOSE,
        },
        "training_pictures": TRAINING_PICTURES,
        "epochs": options.epochs,
        **report.provenance(),
    }
    path = options.out / "result.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path.resolve()}")
    return 0


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
