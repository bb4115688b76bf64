"""A spoken digit anywhere in minutes of continuous sound, by speakers whom the detector never heard.

    python examples/find_words.py --seeds 6

The detector hears three quarters of a second and says which digit is in its middle, or none. ``fcnn.Scan`` lets it
listen at every 16 ms of ten minutes. Each training leaves out one of the six speakers, whose words are then to be
found, among half words, words backwards and noise.

The measured result, with versions, machine, minutes and speakers, is benchmarks/results/find_words.json: the
result.json that this command writes. Beside it the command draws the probabilities over twenty seconds.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import compiled
import continuous
import finding
import jax
import jax.numpy as jnp
import numpy as np
import optax
import report

import fcnn

WINDOW = 48  # frames that the detector hears, 16 ms each
HOP = 128  # samples from one frame to the next
CLOSE = 0.2  # seconds; a word is found if a peak of its digit is this near to its middle
TRAINING_MINUTES = 200
TEST_MINUTES = 10
RATES = (1, 2, 5, 10, 20, 50, 100)  # false alarms per hour and word at which hits are reported
WORD = 7  # the word for which hits and false alarms are reported by itself

DETECTOR = fcnn.serial(
    fcnn.BatchNorm(),                                                              # (batch, 48, 40)
    fcnn.Conv(64, 5, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 22, 64)
    fcnn.Conv(96, 3, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu,  # (batch, 10, 96)
    fcnn.Conv(128, 3, bias=False), fcnn.MaxPool(2), fcnn.BatchNorm(), jax.nn.relu, # (batch, 4, 128)
    fcnn.Dropout(0.3), fcnn.Flatten(), fcnn.Dense(11),                             # (batch, 11)
)  # fmt: skip


def another_voice(key: jax.Array, batch: Any) -> Any:
    """Other microphones and voices: bands louder or softer along a parabola, all of them a little higher or lower."""
    (x,), y = batch  # (batch, 48, 40), logarithms of power
    bend, move = jax.random.split(key)
    band = jnp.linspace(-1, 1, x.shape[-1], dtype=x.dtype)
    curve = jax.random.normal(bend, (len(x), 3), x.dtype) @ jnp.stack([jnp.ones_like(band), band, band**2])
    shift = jax.random.randint(move, (len(x), 1), -2, 3)
    source = jnp.clip(jnp.arange(x.shape[-1]) + shift, 0, x.shape[-1] - 1)
    return (jnp.take_along_axis(x, source[:, None], axis=-1) + curve[:, None],), y


@jax.jit
def frames(samples: jax.Array) -> jax.Array:
    """The power in 40 bands of frequency every 16 ms, (frames, 40): 1-D for the detector, with 40 channels."""
    return fcnn.data.log_mel(samples[None, :, None], hop=HOP)[0, :, :, 0]


def middle(position: Any) -> Any:
    """The middle of the window at a position of the scan, in seconds."""
    return ((position + (WINDOW - 1) / 2) * HOP + 128) / continuous.RATE


def patches(
    sounds: Iterable[continuous.Sound], *, seed: int, jitter: int = 2, near: float = 0.15, nothing: int = 3
) -> tuple[np.ndarray, np.ndarray]:
    """Cut stretches for the detector: every word once in the middle, and for each of them some without.

    Args:
        sounds: minutes of sound.
        seed: of the random numbers.
        jitter: how far from the middle a word may be, in frames.
        near: a word this far from the middle, or farther, is not in the middle; seconds.
        nothing: stretches of the class NOTHING for each word.

    Returns:
        x (stretches, 48, 40) and y (stretches,) int32.
    """
    generator, cut, labels = np.random.default_rng(seed), [], []
    for samples, digits, middles in sounds:
        heard = np.asarray(frames(samples))
        last = len(heard) - WINDOW
        times = middle(np.arange(last + 1))
        for digit, moment in zip(digits, middles, strict=True):
            position = int(np.abs(times - moment).argmin()) + int(generator.integers(-jitter, jitter + 1))
            cut.append(heard[np.clip(position, 0, last) :][:WINDOW])
            labels.append(digit)
        without = np.flatnonzero(np.abs(times[:, None] - middles).min(1) >= near)
        for position in generator.choice(without, nothing * len(digits)):
            cut.append(heard[position : position + WINDOW])
            labels.append(continuous.NOTHING)
    return np.stack(cut), np.array(labels, np.int32)


def train(recordings: fcnn.data.Recordings, held_out: str, seed: int, options: argparse.Namespace) -> tuple[Any, Any]:
    """Train on all speakers but one; returns params and state."""
    speakers = sorted(set(recordings.speakers.tolist()) - {held_out})
    # faster and slower speakers, with higher and lower voices, are made of the five that there are
    minutes = continuous.sounds(recordings, speakers, TRAINING_MINUTES, seed=seed, speed=(0.8, 1.25))
    x, y = patches(minutes, seed=seed)
    rate = optax.schedules.cosine_onecycle_schedule(options.epochs * (len(y) // 128), 4e-3, pct_start=0.2)
    run = fcnn.fit(
        DETECTOR,
        (x, y),
        optimizer=optax.adamw(rate, b2=0.99, weight_decay=0.05, mask=fcnn.training.decay_mask),
        epochs=options.epochs,
        key=jax.random.key(seed),
        loss=fcnn.training.label_smoothing(0.05),
        augment=another_voice,
        progress=options.progress,
    )
    return run.params, run.state


def listen(params: Any, state: Any, sound: continuous.Sound) -> np.ndarray:
    """The log odds of every digit at every frame of a recording, however long, (positions, 10)."""
    scan = fcnn.Scan(DETECTOR, WINDOW)
    odds = finding.log_odds(jax.jit(scan.apply)(params, frames(sound.samples)[None], state=state)[0])
    return np.asarray(odds[:, :10])


def find(odds: np.ndarray) -> list[finding.Found]:
    """The detections of every digit, at places in seconds; nobody says two words at a time."""
    one_by_one = [
        finding.peaks(odds[:, digit], first=middle(0), step=HOP / continuous.RATE, radius=0.3, blur=0.06)
        for digit in range(10)
    ]
    return finding.surest(one_by_one, radius=0.3)


def judge(odds: np.ndarray, sound: continuous.Sound) -> list[finding.Judged]:
    """What was found of every digit, held against what was said."""
    truth = [sound.middles[sound.labels == digit][:, None] for digit in range(10)]
    return [finding.judge([found], [said], CLOSE) for found, said in zip(find(odds), truth, strict=True)]


def measure(judged: list[finding.Judged], hours: float) -> dict[str, float | None]:
    """Hits and false alarms where the probability is above one half, and hits at given rates of false alarms."""
    found: dict[str, float | None] = {}
    for name, one in {"word": judged[WORD], "all": finding.pooled(judged)}.items():
        sure = one.scores > 0
        found[f"{name}_hits"] = float((sure & one.right).sum() / one.positives)
        found[f"{name}_false_alarms_per_hour"] = float((sure & ~one.right).sum() / hours)
    words = len(judged)
    for rate in RATES:
        # one threshold for all words; a rate for each word is the sum of all over the number of words
        found[f"hits_at_{rate}_false_alarms_per_hour_and_word"] = finding.hits_at(
            finding.pooled(judged), rate * hours * words
        )
    return {**found, "seconds_off": finding.mean_off(finding.pooled(judged))}


def draw(sound: continuous.Sound, odds: np.ndarray, path: Any, *, begin: float = 0, seconds: float = 20) -> None:
    """Draw a stretch of sound: its picture, the probability of every digit over time, what was found and what said."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    top, below = figure.subplots(2, 1, sharex=True)
    last = int(begin * continuous.RATE) + int(seconds * continuous.RATE)
    heard = np.asarray(frames(sound.samples[int(begin * continuous.RATE) : last]))
    top.imshow(heard.T, aspect="auto", origin="lower", cmap="magma", extent=(begin, begin + seconds, 0, 40))
    top.set(ylabel="band of frequency", title="the sound, and below it the probability of every digit")
    times, colours = middle(np.arange(len(odds))), [f"C{digit}" for digit in range(10)]
    for digit, (colour, found) in enumerate(zip(colours, find(odds), strict=True)):
        below.plot(times, 1 / (1 + np.exp(-odds[:, digit])), color=colour, linewidth=1.2)
        for score, (place,) in zip(*found, strict=True):
            if score > 0 and begin <= place < begin + seconds:
                said = (np.abs(sound.middles - place) <= CLOSE) & (sound.labels == digit)
                weight = "normal" if said.any() else "bold"
                below.text(place, 1.04, f"{digit}" if said.any() else f"({digit})", color=colour, fontweight=weight)
    for digit, moment in zip(sound.labels, sound.middles, strict=True):
        if begin <= moment < begin + seconds:
            below.text(moment, -0.16, digit, color=colours[digit])
    below.set(xlim=(begin, begin + seconds), ylim=(-0.2, 1.15), yticks=[0, 0.5, 1], xlabel="seconds")
    below.set_title("above the curves what was found (in brackets: wrongly), below them what was said", fontsize=10)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Train without one speaker after the other, listen to ten minutes of that one, measure, write and draw."""
    options = report.read_options(__doc__, epochs=6, out="runs/find_words")
    try:
        recordings = fcnn.data.spoken_digit_recordings()
    except (FileNotFoundError, ValueError) as error:
        print(f"cannot read the data: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    speakers, runs = sorted(set(recordings.speakers.tolist())), []
    for seed in range(options.seeds):
        held_out = speakers[seed % len(speakers)]
        begun = time.perf_counter()
        params, state = train(recordings, held_out, seed, options)
        trained = time.perf_counter()
        sound = continuous.joined(continuous.sounds(recordings, [held_out], TEST_MINUTES, seed=1_000_000 + seed))
        listened = time.perf_counter()
        odds = listen(params, state, sound)
        seconds = {"training_seconds": trained - begun, "scan_seconds": time.perf_counter() - listened}
        runs.append({**measure(judge(odds, sound), TEST_MINUTES / 60), **seconds, "words": len(sound.labels)})
        print(
            f"{held_out}, unheard before: {runs[-1]['all_hits']:.1%} of {len(sound.labels)} words found, "
            f"{runs[-1]['all_false_alarms_per_hour']:.0f} false alarms an hour; {(trained - begun) / 60:.1f} minutes",
            flush=True,
        )
        draw(sound, odds, options.out / f"found_{held_out}.png")
    result = {
        "data": "spoken_digits",
        "speakers_held_out": [speakers[seed % len(speakers)] for seed in range(options.seeds)],
        "seeds": list(range(options.seeds)),
        **{name: finding.mean_and_sd([run[name] for run in runs]) for name in runs[0]},
        "test": {"minutes": TEST_MINUTES, "word": WORD, "close_seconds": CLOSE, "threshold_probability": 0.5},
        "training_minutes_of_sound": TRAINING_MINUTES,
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
