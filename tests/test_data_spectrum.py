"""Spectrograms against SciPy, mel bands against the formula written out."""

import math

import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest

from fcnn import data


def noise(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def by_scipy(x, window, hop):
    """|STFT|² of SciPy, (batch, frames, bins, channels): no padding, the spectrum's scale."""
    signal = pytest.importorskip("scipy.signal")
    _, _, z = signal.stft(
        np.moveaxis(x, 1, -1),
        window="hann",
        nperseg=window,
        noverlap=window - hop,
        boundary=None,
        padded=False,
        detrend=False,
        scaling="spectrum",
    )
    return np.einsum("bcft->btfc", np.abs(z) ** 2)


def mel_filters(rate, window, bands, low, high):
    """The triangles, one number at a time, from O'Shaughnessy's formula."""

    def mel(hertz):
        return 2595 * math.log10(1 + hertz / 700)

    def hertz(mel):
        return 700 * (10 ** (mel / 2595) - 1)

    step = (mel(high) - mel(low)) / (bands + 1)
    out = np.zeros((window // 2 + 1, bands))
    for b in range(bands):
        left, middle, right = (hertz(mel(low) + (b + i) * step) for i in range(3))
        for k in range(window // 2 + 1):
            f = k * rate / window
            if left < f <= middle:
                out[k, b] = (f - left) / (middle - left)
            elif middle < f < right:
                out[k, b] = (right - f) / (right - middle)
    return out


@pytest.mark.parametrize(
    ("samples", "window", "hop", "channels"),
    [(2000, 256, 80, 1), (256, 256, 80, 2), (777, 100, 33, 3), (301, 51, 51, 1), (64, 2, 1, 1), (500, 64, 64, 1)],
)
def test_spectrogram_agrees_with_scipy(x64, samples, window, hop, channels):
    x = noise((2, samples, channels))
    found = jax.jit(lambda x: data.spectrogram(x, window=window, hop=hop))(x)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, by_scipy(x, window, hop), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"rate": 16000, "window": 400, "hop": 160, "bands": 64, "low": 60.0, "high": 7600.0},
        {"window": 255, "hop": 100, "bands": 3, "floor": 1e-3},
        {"bands": 1, "low": 1000, "high": 2000},
    ],
    ids=["by default", "16 kHz", "odd window", "one band"],
)
def test_log_mel_agrees_with_the_formula_written_out(x64, form):
    x = noise((2, 1500, 2), seed=1) * 1e-3
    named = {"rate": 8000, "window": 256, "hop": 80, "bands": 40, "low": 0.0, "floor": 1e-10} | form
    high = named.get("high", named["rate"] / 2)
    power = by_scipy(x, named["window"], named["hop"])
    filters = mel_filters(named["rate"], named["window"], named["bands"], named["low"], high)
    expected = np.log(named["floor"] + np.einsum("btfc,fm->btmc", power, filters))
    found = data.log_mel(jnp.asarray(x), **form)
    assert found.shape == (2, 1 + (1500 - named["window"]) // named["hop"], named["bands"], 2)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_the_mel_scale_has_1000_mel_at_1000_hertz():
    # the scale's own definition: 1,000 Hz are 1,000 mel; a band from there, 50 wide, rings for a tone in its middle
    tone = jnp.sin(2 * jnp.pi * 1000 * jnp.linspace(0, 0.5, 4001))[None, :, None]
    y = data.log_mel(tone, bands=41, low=0, high=700 * (10 ** (2100 / 2595) - 1))  # centres at 50, 100, ... mel
    assert set(np.asarray(y[0, :, :, 0]).argmax(1).tolist()) == {19}


def test_float32_and_shorter_numbers_stay_what_they_are():
    x = noise((1, 2000, 1)) * 0.1
    truth = np.log(1e-10 + np.einsum("btfc,fm->btmc", by_scipy(x, 256, 80), mel_filters(8000, 256, 40, 0, 4000)))
    for dtype, tolerance in ((jnp.float32, 1e-4), (jnp.float16, 0.05), (jnp.bfloat16, 0.3)):
        found = data.log_mel(jnp.asarray(x, dtype))
        assert found.dtype == dtype
        np.testing.assert_allclose(np.asarray(found, np.float64), truth, atol=tolerance)
        assert data.spectrogram(jnp.asarray(x, dtype)).dtype == dtype
    assert data.log_mel(x.astype(np.float32)).dtype == jnp.float32  # arrays of NumPy are taken too


def test_gradients_agree_with_differences_and_exist_in_silence(x64):
    x = jnp.asarray(noise((1, 130, 2)))
    log_mel = jax.jit(lambda x: data.log_mel(x, window=64, hop=32, bands=5))
    jax.test_util.check_grads(log_mel, (x,), order=2, eps=1e-5)
    silence = jnp.zeros((1, 130, 1))
    slope = jax.grad(lambda x: log_mel(x).sum())(silence)
    np.testing.assert_array_equal(slope, 0)


def test_they_compose_with_jit_and_vmap(x64):
    x = jnp.asarray(noise((3, 2, 400, 1)))
    for one in (data.spectrogram, lambda x: data.log_mel(x, bands=20)):
        expected = np.stack([one(part) for part in x])
        np.testing.assert_allclose(jax.jit(jax.vmap(one))(x), expected, rtol=1e-10, atol=1e-14)


X = jnp.zeros((1, 300, 1))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: data.spectrogram(X[0]), ValueError, r"spectrogram: x has the shape \(300, 1\), it must be \(batch"),
        (lambda: data.spectrogram(X[:, :200]), ValueError, "200 samples, fewer than the window's 256"),
        (lambda: data.spectrogram(X.astype(jnp.int16)), TypeError, "holds int16; .* divided by 32768"),
        (lambda: data.spectrogram(X, window=1), ValueError, "window is 1, it must be at least 2"),
        (lambda: data.spectrogram(X, hop=0), ValueError, "hop is 0, it must be at least 1"),
        (lambda: data.spectrogram(X, hop=2.0), TypeError, "hop is 2.0, it must be an integer"),
        (lambda: data.spectrogram(X, window=True), TypeError, "window is True"),
        (lambda: data.log_mel(X, bands=0), ValueError, "log_mel: bands is 0"),
        (lambda: data.log_mel(X, bands=200), ValueError, "falls into band 0 of 200, .* fewer bands or a longer window"),
        (lambda: data.log_mel(X, low=-1), ValueError, "low is -1 and high 4000 Hz"),
        (lambda: data.log_mel(X, high=4001), ValueError, "from 0 to 4000 Hz"),
        (lambda: data.log_mel(X, low=300, high=300), ValueError, "in this order"),
        (lambda: data.log_mel(X, high=float("nan")), ValueError, "in this order"),
        (lambda: data.log_mel(X, rate=0), ValueError, "rate is 0"),
        (lambda: data.log_mel(X, floor=0), ValueError, "floor is 0, .* silence has no logarithm"),
        (lambda: data.log_mel(X[None]), ValueError, r"log_mel: x has the shape \(1, 1, 300, 1\)"),
    ],
)
def test_wrong_arguments_are_explained(call, error, message):
    with pytest.raises(error, match=message):
        call()
