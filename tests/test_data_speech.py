"""Spoken digits: forged recordings in the original layout, and the real set where it is there."""

import hashlib
import importlib
import io
import os
import wave
from pathlib import Path

import numpy as np
import pytest

from fcnn import data

speech = importlib.import_module("fcnn.data.speech")

needs_fsdd = pytest.mark.skipif(
    not (os.environ.get("FCNN_DATA") and (Path(os.environ["FCNN_DATA"]) / "fsdd").is_dir()),
    reason="set FCNN_DATA to a folder with fsdd/",
)


def recording(samples, rate=8000, channels=1, width=2):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(np.asarray(samples).astype("<i2").tobytes())
    return out.getvalue()


#: (digit, speaker, take): samples, in the order of digit, speaker, take
SPOKEN = {
    (digit, speaker, take): np.arange(-50, 50 + 1000 * take) + digit
    for digit in (0, 3)
    for speaker in ("ann", "bo_b")
    for take in (0, 4, 5, 11)
}
SPOKEN[0, "ann", 0] = np.array([-32768, 0, 16384, 32767])


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A clone of the original repository with a few recordings, named and laid out as there."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FCNN_DATA", str(tmp_path))
    made = tmp_path / "free-spoken-digit-dataset" / "recordings"
    made.mkdir(parents=True)
    for (digit, speaker, take), samples in SPOKEN.items():
        (made / f"{digit}_{speaker}_{take}.wav").write_bytes(recording(samples))
    (made / ".hidden.wav").write_bytes(b"")
    (made / "readme.md").write_text("words")
    return made


@pytest.fixture
def npz(tmp_path, monkeypatch):
    """The same recordings end to end in fsdd.npz."""
    place = tmp_path / "npz" / "fsdd"
    place.mkdir(parents=True)
    speakers = ["ann", "bo_b"]
    np.savez(
        place / "fsdd.npz",
        samples=np.concatenate(list(SPOKEN.values())).astype(np.int16),
        offsets=np.cumsum([0, *map(len, SPOKEN.values())]),
        labels=np.array([digit for digit, _, _ in SPOKEN], np.uint8),
        speakers=np.array([speakers.index(speaker) for _, speaker, _ in SPOKEN], np.uint8),
        takes=np.array([take for _, _, take in SPOKEN], np.uint8),
        speaker_names=np.array(speakers),
    )
    monkeypatch.setattr(speech, "CHECKSUM", hashlib.sha256((place / "fsdd.npz").read_bytes()).hexdigest())
    monkeypatch.setenv("FCNN_DATA", str(tmp_path / "npz"))
    return place / "fsdd.npz"


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_recordings_are_those_that_were_written(request, form):
    request.getfixturevalue(form)
    found = data.spoken_digit_recordings()
    assert list(zip(found.labels.tolist(), found.speakers.tolist(), found.takes.tolist(), strict=True)) == list(SPOKEN)
    for samples, truth in zip(found.samples, SPOKEN.values(), strict=True):
        assert samples.dtype == np.float32
        np.testing.assert_array_equal(samples, truth / 32768)
    assert found.samples[0].tolist() == [-1, 0, 0.5, 32767 / 32768]
    assert found.rate == 8000
    assert "CC BY-SA 4.0" in found.licence


@pytest.mark.parametrize("form", ["folder", "npz"])
def test_takes_0_to_4_are_for_testing_and_every_wave_has_the_length_asked_for(request, form):
    request.getfixturevalue(form)
    (x, y), (test_x, test_y), classes, _ = data.spoken_digits(seconds=0.5)
    assert x.shape == (8, 4000, 1)
    assert test_x.shape == (8, 4000, 1)
    truth = np.zeros((16, 4000))
    for row, samples in zip(truth, SPOKEN.values(), strict=True):
        row[: min(4000, len(samples))] = samples[:4000] / 32768
    tested = np.array([take <= 4 for _, _, take in SPOKEN])
    np.testing.assert_array_equal(x[..., 0], truth[~tested])
    np.testing.assert_array_equal(test_x[..., 0], truth[tested])
    assert y.tolist() == test_y.tolist() == [0] * 4 + [3] * 4
    assert (x.dtype, y.dtype) == (np.float32, np.int32)
    assert classes == tuple("0123456789")


@pytest.mark.parametrize("held_out", ["bo_b", ("bo_b",), ["bo_b", "bo_b"]])
def test_speakers_can_be_held_out(folder, held_out):
    train, test, _, _ = data.spoken_digits(held_out=held_out)
    assert len(train[1]) == len(test[1]) == 8
    theirs = [samples for (_, speaker, _), samples in SPOKEN.items() if speaker == "bo_b"]
    np.testing.assert_array_equal(test[0][-1, :8000, 0], np.pad(theirs[-1], (0, 8000))[:8000] / 32768)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"held_out": "carl"}, ValueError, r"names \['carl'\], the speakers are ann, bo_b"),
        ({"held_out": ("ann", "bo_b")}, ValueError, "nobody is left"),
        ({"held_out": ()}, ValueError, "names no speaker"),
        ({"seconds": 0}, ValueError, "at least one sample"),
        ({"seconds": float("nan")}, ValueError, "at least one sample"),
        ({"seconds": float("inf")}, ValueError, "at least one sample"),
        ({"seconds": "1"}, TypeError, "must be a number"),
        ({"seconds": True}, TypeError, "must be a number"),
    ],
)
def test_wrong_arguments_are_explained(folder, arguments, error, message):
    with pytest.raises(error, match=f"spoken_digits: .*{message}"):
        data.spoken_digits(**arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole WAV file"),
        (b"RIFF", "not a whole WAV file"),
        (b"OggS" + bytes(200), "not a whole WAV file"),
        (recording(np.arange(100))[:-9], "100 samples, it holds 95"),
        (recording([]), "holds 0"),
        (recording(np.arange(100), rate=16000), "1 channels of 16 bits at 16000 Hz, expected 1 of 16 bits at 8000 Hz"),
        (recording(np.arange(100), channels=2), "2 channels"),
        (recording(np.arange(100), width=1), "8 bits"),
    ],
    ids=["nothing", "four bytes", "another format", "cut short", "no samples", "rate", "stereo", "8 bits"],
)
def test_broken_recordings_are_refused_by_name(folder, content, message):
    (folder / "3_ann_5.wav").write_bytes(content)
    with pytest.raises(data.DataDamagedError, match=rf"3_ann_5\.wav .*{message}"):
        data.spoken_digits()


def test_a_recording_of_another_name_is_refused(folder):
    (folder / "hello.wav").write_bytes(recording(np.arange(100)))
    with pytest.raises(data.DataDamagedError, match=r"hello\.wav is not named digit_speaker_take\.wav"):
        data.spoken_digits()


def test_a_damaged_archive_is_refused(npz):
    raw = bytearray(npz.read_bytes())
    raw[len(raw) // 2] ^= 1
    npz.write_bytes(raw)
    with pytest.raises(data.DataDamagedError, match=r"fsdd\.npz is damaged"):
        data.spoken_digits()


@pytest.mark.parametrize("empty", [False, True])
def test_without_files_one_sentence_says_what_to_put_where(tmp_path, monkeypatch, empty):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("FCNN_DATA", str(tmp_path))
    if empty:
        (tmp_path / "fsdd" / "recordings").mkdir(parents=True)
    with pytest.raises(data.DataNotFoundError) as caught:
        data.spoken_digits()
    for part in ("recordings", "FCNN_DATA", "'fsdd'", str(tmp_path / "cache" / "fcnn" / "fsdd")):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_fsdd
def test_the_real_set_is_the_published_one():
    found = data.spoken_digit_recordings()
    # its README: 3,000 recordings, 6 speakers, 50 of each digit by each speaker
    assert len(found.samples) == 3000
    assert sorted(set(found.speakers.tolist())) == ["george", "jackson", "lucas", "nicolas", "theo", "yweweler"]
    _, counts = np.unique(np.stack([found.labels, [ord(s[0]) for s in found.speakers]]), axis=1, return_counts=True)
    assert counts.tolist() == [50] * 60
    assert [min(map(len, found.samples)), max(map(len, found.samples))] == [1148, 18262]
    train, test, _, _ = data.spoken_digits()
    assert train[0].shape == (2700, 8000, 1)
    assert test[0].shape == (300, 8000, 1)
    assert np.bincount(test[1]).tolist() == [30] * 10
    # what the docstring says of the second that is kept
    longer = [samples.astype(np.float64) for samples in found.samples if len(samples) > 8000]
    assert len(longer) == 20
    assert min((w[:8000] ** 2).sum() / (w**2).sum() for w in longer) > 0.992


@needs_fsdd
def test_a_speaker_of_the_real_set_can_be_held_out():
    found = data.spoken_digit_recordings()
    train, test, _, _ = data.spoken_digits(held_out=("theo",))
    assert len(test[1]) == 500
    assert len(train[1]) == 2500
    first = found.samples[np.flatnonzero(found.speakers == "theo")[0]]
    np.testing.assert_array_equal(test[0][0, : len(first), 0], first)
