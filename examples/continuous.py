"""Minutes of continuous sound with spoken digits somewhere in it, among half words, words backwards and noise."""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

import fcnn

NOTHING = 10  # the class of a stretch without a digit in its middle
RATE = 8000  # samples per second
LOUDNESS = 0.1  # root mean square of a word, before it is made louder or softer


class Sound(NamedTuple):
    """A recording and what is said in it.

    Attributes:
        samples: (samples,) float32, 8,000 a second.
        labels: the digits said, (words,) int32.
        middles: when, in seconds from the beginning to the middle of each word, (words,) float32.
    """

    samples: np.ndarray
    labels: np.ndarray
    middles: np.ndarray


def sounds(
    recordings: fcnn.data.Recordings,
    speakers: Sequence[str],
    minutes: int,
    *,
    seed: int,
    speed: tuple[float, float] = (1.0, 1.0),
    distractors: float = 0.3,
    signal_to_noise: tuple[float, float] = (10.0, 25.0),
) -> Iterator[Sound]:
    """Make sound, a minute at a time, the same for the same seed; in each minute one speaker says words in any order.

    Between words there is a pause of 0.1 to 1 seconds. Some of them are none: the beginning of one digit with the end
    of another, or a digit backwards. Noise lies under all of it, from white to red.

    Args:
        recordings: spoken digits.
        speakers: who may speak.
        minutes: how many to make.
        seed: of the random numbers.
        speed: words are played this much faster or slower, and so higher or lower.
        distractors: the share of words that are none.
        signal_to_noise: the words' power over the noise's, in decibels, drawn anew for every minute.

    Yields:
        One minute.
    """
    generator = np.random.default_rng(seed)
    spoken_by = {speaker: np.flatnonzero(recordings.speakers == speaker) for speaker in speakers}
    decks: dict[str, list[int]] = {speaker: [] for speaker in speakers}
    for minute in range(minutes):
        speaker = speakers[minute % len(speakers)]

        def word(speaker: str = speaker) -> tuple[np.ndarray, int]:
            if not decks[speaker]:  # no recording comes twice before all of them came once
                decks[speaker] = generator.permutation(spoken_by[speaker]).tolist()
            i = decks[speaker].pop()
            rate = generator.uniform(*speed)
            return resampled(recordings.samples[i], rate), int(recordings.labels[i])

        samples = noise(generator, 60 * RATE) * LOUDNESS * 10 ** (-generator.uniform(*signal_to_noise) / 20)
        labels, middles, begin = [], [], int(RATE * generator.uniform(0.1, 1.0))
        while True:
            wave, label = word()
            if generator.random() < distractors:
                wave, label = no_word(generator, wave, label, *word()), NOTHING
            if begin + len(wave) > len(samples):
                break
            loudness = LOUDNESS * 10 ** (generator.uniform(-6, 6) / 20)
            samples[begin : begin + len(wave)] += wave * np.float32(loudness / np.sqrt(np.mean(wave**2)))
            if label != NOTHING:
                labels.append(label)
                middles.append((begin + len(wave) / 2) / RATE)
            begin += len(wave) + int(RATE * generator.uniform(0.1, 1.0))
        yield Sound(samples, np.array(labels, np.int32), np.array(middles, np.float32))


def joined(minutes: Iterable[Sound]) -> Sound:
    """Minutes one after another, as one recording."""
    samples, labels, middles = zip(*minutes, strict=True)
    ends = np.cumsum([0, *(len(s) for s in samples)]) / RATE
    later = [begin + m for begin, m in zip(ends[:-1], middles, strict=True)]
    return Sound(np.concatenate(samples), np.concatenate(labels), np.concatenate(later).astype(np.float32))


def no_word(generator: np.random.Generator, a: np.ndarray, digit_a: int, b: np.ndarray, digit_b: int) -> np.ndarray:
    """The first half of one digit with the second half of another; one backwards if both are the same."""
    if digit_a == digit_b or generator.random() < 0.3:
        return a[::-1]
    return np.concatenate([a[: len(a) // 2], b[len(b) // 2 :]])


def noise(generator: np.random.Generator, length: int) -> np.ndarray:
    """Noise of power 1 that falls with the frequency: as its power 0 (white) to -2 (red)."""
    spectrum = np.fft.rfft(generator.normal(size=length))
    frequency = np.maximum(np.fft.rfftfreq(length, 1 / RATE), 50)
    wave = np.fft.irfft(spectrum * frequency ** -generator.uniform(0, 1), length)
    return (wave / wave.std()).astype(np.float32)


def resampled(wave: np.ndarray, rate: float) -> np.ndarray:
    """The sound played ``rate`` times as fast."""
    if rate == 1:
        return wave
    return np.interp(np.arange(0, len(wave) - 1, rate), np.arange(len(wave)), wave).astype(np.float32)
