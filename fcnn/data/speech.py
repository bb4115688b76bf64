"""The Free Spoken Digit Dataset: the digits spoken in English by six speakers."""

from __future__ import annotations

import math
import re
import wave
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .dataset import Dataset
from .files import DataDamagedError, find, not_found
from .npz import read_npz

NAMES = ("fsdd", "free-spoken-digit-dataset")
CHECKSUM = "1e34e3cb3067bf9676ac5ef6206c6a16ae69ce4573053235fa6343e8559fef40"
RATE = 8000
LICENCE = "Free Spoken Digit Dataset (Jakobovski and contributors), CC BY-SA 4.0"


class Recordings(NamedTuple):
    """Recordings of unequal length, in the order of digit, speaker and take.

    Attributes:
        samples: one array (length,) float32 in [-1, 1] per recording.
        labels: the spoken digit, (recordings,) int32.
        speakers: name of the speaker, (recordings,) str.
        takes: number of the recording among those of its speaker and digit, (recordings,) int32.
        rate: samples per second.
        licence: source and licence of the data, in one line.
    """

    samples: tuple[np.ndarray, ...]
    labels: np.ndarray
    speakers: np.ndarray
    takes: np.ndarray
    rate: int
    licence: str


def spoken_digits(*, seconds: float = 1.0, held_out: str | Sequence[str] | None = None) -> Dataset:
    """3,000 recordings of spoken digits as waveforms of equal length, at 8,000 samples per second.

    The recordings are trimmed to the speech, so each begins with the word. Longer recordings are cut at the end,
    shorter ones are followed by zeros. Only 20 of the 3,000 are longer than a second, and none loses more than 0.8% of
    its energy.

    Args:
        seconds: length of each example.
        held_out: None splits by the data set's own rule: takes 0 to 4 are for testing (300 of 3,000). With one or more
            names of speakers, such as ``("theo",)``, all their recordings, and only these, are for testing.

    Shapes:
        train x (2700, seconds * 8000, 1), test x (300, seconds * 8000, 1) float32 in [-1, 1].

    Returns:
        The data set.

    Raises:
        TypeError: ``seconds`` is not a number.
        ValueError: ``seconds`` is shorter than a sample, a speaker does not exist, or no speaker is left for training.
        DataNotFoundError: the files are missing; the message says which files to put where.
        DataDamagedError: a file has a wrong checksum or wrong content.

    Source:
        Jackson and others, "Free Spoken Digit Dataset", https://github.com/Jakobovski/free-spoken-digit-dataset.

    Example:
        >>> spoken_digits(held_out="theo").test[0].shape    # doctest: +SKIP
        (500, 8000, 1)
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float, np.number)):
        raise TypeError(f"spoken_digits: seconds is {seconds!r}, it must be a number")
    if not math.isfinite(seconds) or round(float(seconds) * RATE) < 1:
        raise ValueError(f"spoken_digits: seconds is {seconds!r}, it must be at least one sample, {1 / RATE}")
    names = None if held_out is None else (held_out,) if isinstance(held_out, str) else tuple(held_out)
    if names == ():
        raise ValueError("spoken_digits: held_out names no speaker; None splits by the data set's own rule")
    samples, labels, speakers, takes, _, licence = spoken_digit_recordings()
    if names is None:
        test = takes < 5
    else:
        if unknown := set(names) - set(speakers.tolist()):
            known = ", ".join(sorted(set(speakers.tolist())))
            raise ValueError(f"spoken_digits: held_out names {sorted(unknown)}, the speakers are {known}")
        test = np.isin(speakers, names)
        if test.all():
            raise ValueError("spoken_digits: held_out names every speaker, nobody is left to train on")
    x = np.zeros((len(samples), round(float(seconds) * RATE), 1), np.float32)
    for row, recording in zip(x, samples, strict=True):
        kept = recording[: len(row)]
        row[: len(kept), 0] = kept
    return Dataset((x[~test], labels[~test]), (x[test], labels[test]), tuple("0123456789"), licence)


def spoken_digit_recordings() -> Recordings:
    """The recordings of the Free Spoken Digit Dataset at their original lengths, with their speakers.

    They are read from ``fsdd.npz``, whose SHA-256 is verified, or from ``recordings/``, the folder of WAV files in a
    clone of the original repository. Either may be in a folder ``fsdd`` or ``free-spoken-digit-dataset`` inside the
    folder named by the environment variable FCNN_DATA, in that folder itself, or in ``~/.cache/fcnn/fsdd``.

    Shapes:
        3,000 arrays of 1,148 to 18,262 samples; labels, speakers and takes (3000,).

    Returns:
        The recordings.

    Raises:
        DataNotFoundError: the files are missing; the message says which files to put where.
        DataDamagedError: a file has a wrong checksum or wrong content.

    Source:
        Jackson and others, "Free Spoken Digit Dataset", https://github.com/Jakobovski/free-spoken-digit-dataset.

    Example:
        >>> heard = spoken_digit_recordings()    # doctest: +SKIP
        >>> heard.speakers[0].item(), len(heard.samples[0]) / heard.rate    # doctest: +SKIP
        ('george', 0.298)
    """
    if (path := find("fsdd.npz", *NAMES)) is not None:
        return _from_npz(path)
    if (path := find("recordings", *NAMES)) is not None:
        return _from_folder(path)
    raise not_found(
        NAMES[0],
        "fsdd.npz or the folder recordings of https://github.com/Jakobovski/free-spoken-digit-dataset",
    )


def _from_npz(path: Path) -> Recordings:
    names = ("samples", "offsets", "labels", "speakers", "speaker_names", "takes")
    samples, offsets, labels, speakers, speaker_names, takes = read_npz(path, CHECKSUM, *names)
    waves = _unit(samples)
    return Recordings(
        tuple(waves[a:b] for a, b in pairwise(offsets)),
        labels.astype(np.int32),
        speaker_names[speakers],
        takes.astype(np.int32),
        RATE,
        LICENCE,
    )


def _from_folder(folder: Path) -> Recordings:
    if not folder.is_dir():
        raise DataDamagedError(f"{folder} is not a folder of recordings")
    named = []
    for path in folder.iterdir():
        if path.suffix.lower() != ".wav" or path.name.startswith("."):
            continue
        match = re.fullmatch(r"(\d)_(.+)_(\d+)\.wav", path.name, re.IGNORECASE | re.ASCII)
        if match is None:
            raise DataDamagedError(f"{path} is not named digit_speaker_take.wav, as 7_theo_0.wav is")
        named.append((int(match[1]), match[2], int(match[3]), path))
    if not named:
        raise not_found(NAMES[0], f"digit_speaker_take.wav files into {folder}, which holds none,")
    named.sort()
    return Recordings(
        tuple(_unit(_read_wav(path)) for *_, path in named),
        np.array([digit for digit, *_ in named], np.int32),
        np.array([speaker for _, speaker, *_ in named]),
        np.array([take for *_, take, _ in named], np.int32),
        RATE,
        LICENCE,
    )


def _read_wav(path: Path) -> np.ndarray:
    try:
        with wave.open(str(path), "rb") as file:
            form = (file.getnchannels(), 8 * file.getsampwidth(), file.getframerate())
            count, raw = file.getnframes(), file.readframes(file.getnframes())
    except (OSError, EOFError, wave.Error) as error:
        raise DataDamagedError(f"{path} is not a whole WAV file ({error or 'it ends early'})") from None
    if form != (1, 16, RATE):
        raise DataDamagedError(
            f"{path} has {form[0]} channels of {form[1]} bits at {form[2]} Hz, expected 1 of 16 bits at {RATE} Hz"
        )
    if len(raw) != 2 * count or not count:
        raise DataDamagedError(f"{path} should hold {count:,} samples, it holds {len(raw) // 2:,}")
    return np.frombuffer(raw, "<i2")


def _unit(samples: np.ndarray) -> np.ndarray:
    return np.divide(samples, np.float32(32768), dtype=np.float32)
