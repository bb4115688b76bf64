"""Sounds whose pitch is known, because they are made of it: glides, a voice with vibrato and vowels, noise, silence."""

from typing import NamedTuple

import numpy as np

RATE = 16_000  # samples per second

#: the first three formants of a woman's vowels in Hz: Peterson and Barney, "Control methods used in a study of the
#: vowels", 1952, table II
FORMANTS = {
    "a": (850, 1220, 2810), "e": (610, 2330, 2990), "i": (310, 2790, 3310),
    "o": (590, 920, 2710), "u": (370, 950, 2670),
}  # fmt: skip
BANDWIDTH = 90  # Hz


class Part(NamedTuple):
    """A stretch of sound.

    Attributes:
        name: what it is.
        samples: (samples,) float32.
        pitch: the frequency in Hz at every sample; NaN where there is none, (samples,).
    """

    name: str
    samples: np.ndarray
    pitch: np.ndarray


def parts(seed: int = 0) -> list[Part]:
    """All of them, in order."""
    generator = np.random.default_rng(seed)
    melody = [(220, "a"), (277.2, "e"), (329.6, "i"), (440, "o"), (370, "u"), (247, "a")]
    voice = sung(melody, 0.6)
    return [
        tone("a sine", glide(110, 880, 2.0), [1.0]),
        silence(0.5),
        tone("harmonics", glide(400, 82, 2.0), 1 / np.arange(1, 90)),
        noise(generator, 0.5),
        voice,
        # nearly a clarinet, and a voice on the telephone, which takes away the two lowest harmonics
        tone("odd harmonics", glide(196, 587, 1.5), [1, 0, 0.6, 0, 0.4, 0, 0.2, 0, 0.1]),
        tone("no fundamental", glide(160, 130, 1.0), [0, 0, 1, 1, 1, 1, 0.5]),
        in_noise(generator, voice, 10),
    ]


def glide(begin: float, end: float, seconds: float) -> np.ndarray:
    """A pitch that goes from one frequency to another, as many cents in every second."""
    return np.geomspace(begin, end, int(seconds * RATE))


def tone(name: str, pitch: np.ndarray, amplitudes: np.ndarray | list[float]) -> Part:
    """A sound with harmonics of given amplitudes."""
    numbers = np.arange(1, len(amplitudes) + 1)
    return Part(name, played(pitch, np.asarray(amplitudes)[:, None] * np.ones_like(pitch), numbers), pitch)


def sung(notes: list[tuple[float, str]], seconds: float) -> Part:
    """A voice that sings vowels on notes, slides from one to the next in a tenth of a second, and has a vibrato."""
    time = np.arange(int(len(notes) * seconds * RATE)) / RATE
    middles = (np.arange(len(notes)) + 0.5) * seconds
    edges = np.stack([middles - seconds / 2 + 0.05, middles + seconds / 2 - 0.05], axis=1).ravel()
    steady = np.exp(np.interp(time, edges, np.repeat(np.log([frequency for frequency, _ in notes]), 2)))
    pitch = steady * 2 ** (40 / 1200 * np.sin(2 * np.pi * 5.5 * time))  # 40 cents up and down, 5.5 times a second
    formants = np.array([FORMANTS[vowel] for _, vowel in notes], float)
    formants = np.stack([np.interp(time, edges, np.repeat(of_each, 2)) for of_each in formants.T])  # (3, samples)
    numbers = np.arange(1, 46)
    frequencies = numbers[:, None] * pitch
    amplitudes = 1 / numbers[:, None] ** 1.2 * np.ones_like(frequencies)  # the vocal folds, and lips that radiate
    for formant in formants:
        at = frequencies / formant
        amplitudes /= np.hypot(1 - at**2, at * BANDWIDTH / formant)
    return Part("a voice", played(pitch, amplitudes, numbers), pitch)


def played(pitch: np.ndarray, amplitudes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """The sum of harmonics (harmonics, samples), without those above what the rate can hold, soft at both ends."""
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    heard = numbers[:, None] * pitch < 0.47 * RATE
    wave = (amplitudes * heard * np.sin(numbers[:, None] * phase)).sum(0)
    ends = np.minimum(np.arange(len(wave)), np.arange(len(wave))[::-1]) / (0.02 * RATE)
    return (0.1 * wave / wave.std() * ends.clip(None, 1)).astype(np.float32)


def silence(seconds: float) -> Part:
    """Nothing at all."""
    count = int(seconds * RATE)
    return Part("silence", np.zeros(count, np.float32), np.full(count, np.nan))


def noise(generator: np.random.Generator, seconds: float) -> Part:
    """White noise, which has no pitch."""
    count = int(seconds * RATE)
    return Part("noise", generator.normal(0, 0.05, count).astype(np.float32), np.full(count, np.nan))


def in_noise(generator: np.random.Generator, part: Part, decibels: float) -> Part:
    """A part with white noise under it, so many decibels weaker."""
    wave = part.samples + generator.normal(0, part.samples.std() * 10 ** (-decibels / 20), len(part.samples))
    return Part(f"{part.name} in noise", wave.astype(np.float32), part.pitch)
