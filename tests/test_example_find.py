"""The examples that find things: peaks, hits and precision by hand, the data they make, a run of each in small."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import fcnn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def examples(monkeypatch):
    """Import an example by name."""
    monkeypatch.syspath_prepend(EXAMPLES)
    return lambda name: __import__(name)


@pytest.fixture
def finding(examples):
    return examples("finding")


# Peaks


def test_of_near_peaks_the_higher_one_counts(finding):
    scores = np.full((20, 30), -9.0)
    scores[4, 5], scores[4, 8], scores[15, 20] = 3.0, 2.0, 1.0
    found = finding.peaks(scores, first=16, step=2, radius=8, blur=0)
    np.testing.assert_array_equal(found.scores, [3, 1])
    np.testing.assert_allclose(found.places, [[24, 26], [46, 56]])  # 16 + 2 * (4, 5), 16 + 2 * (15, 20)
    apart = finding.peaks(scores, first=16, step=2, radius=6, blur=0)  # (4, 8) is 6 pixels off: not nearer than 6
    np.testing.assert_array_equal(apart.scores, [3, 2, 1])


def test_a_peak_that_a_lost_one_would_hide_stays(finding):
    scores = np.full(30, -9.0)
    scores[[10, 14, 18]] = 3.0, 2.0, 1.0  # the second is lost to the first; the third is near the second alone
    np.testing.assert_array_equal(finding.peaks(scores, first=0, step=1, radius=5, blur=0).scores, [3, 1])


def test_the_place_of_a_plateau_is_its_middle(finding):
    scores = np.full((20, 20), -60.0)
    scores[6:9, 10:15] = 40.0  # probability 1 to rounding
    found = finding.peaks(scores, first=0, step=1, radius=9, blur=8)
    np.testing.assert_allclose(found.places, [[7, 12]])


def test_a_map_without_peaks_has_none(finding):
    found = finding.peaks(np.full((5, 5), -9.0), first=0, step=1, radius=3, blur=1)
    assert found.scores.shape == (0,)
    assert found.places.shape == (0, 2)


def test_of_two_classes_in_one_place_the_surer_counts(finding):
    first = finding.Found(np.array([5.0, 1.0]), np.array([[10.0], [30.0]]))
    second = finding.Found(np.array([4.0, 3.0, 2.0]), np.array([[12.0], [28.0], [15.0]]))
    one, other, none = finding.surest([first, second, finding.Found(np.zeros(0), np.zeros((0, 1)))], radius=4)
    np.testing.assert_array_equal(one.scores, [5])  # the second is near a surer one of the other class
    np.testing.assert_array_equal(one.places, [[10]])
    np.testing.assert_array_equal(other.scores, [3, 2])
    np.testing.assert_array_equal(other.places, [[28], [15]])  # 15 is near 12, which does not count itself
    assert none.scores.shape == (0,)


# Hits and precision


def judged(finding, scores, right, positives):
    right = np.array(right, bool)
    return finding.Judged(np.array(scores, float), right, np.where(right, 0.0, np.nan), positives)


def test_each_thing_is_found_once_by_the_surest_that_is_close(finding):
    first = finding.Found(np.array([5.0, 4.0, 3.0]), np.array([[10.0, 10], [12, 10], [50, 50]]))
    second = finding.Found(np.array([2.0]), np.array([[10.0, 14]]))
    truth = [np.array([[10.0, 13], [90, 90]]), np.array([[10.0, 10]])]
    found = finding.judge([first, second], truth, close=4)
    assert found.positives == 3
    np.testing.assert_array_equal(found.scores, [5, 4, 3, 2])
    np.testing.assert_array_equal(found.right, [True, False, False, True])  # the second: found already
    np.testing.assert_array_equal(found.off, [3, np.nan, np.nan, 4])


def test_two_things_that_are_close_are_both_found(finding):
    found = finding.Found(np.array([2.0, 1.0]), np.array([[1.0], [1.5]]))
    result = finding.judge([found], [np.array([[1.1], [1.7]])], close=1)
    np.testing.assert_array_equal(result.right, [True, True])
    np.testing.assert_allclose(result.off, [0.1, 0.2])


def test_nothing_there_and_nothing_found(finding):
    nothing = finding.Found(np.zeros(0), np.zeros((0, 2)))
    one = finding.Found(np.array([1.0]), np.array([[3.0, 3]]))
    result = finding.judge([nothing, one, nothing], [np.ones((2, 2)), np.zeros((0, 2)), np.zeros((0, 2))], close=1)
    assert result.positives == 2
    np.testing.assert_array_equal(result.right, [False])
    assert finding.average_precision(result) == 0
    assert finding.average_precision(finding.judge([nothing], [np.ones((1, 2))], close=1)) == 0


def test_average_precision_by_hand(finding):
    # precision 1, 1/2, 2/3, 1/2 at recall 1/3, 1/3, 2/3, 2/3: 1/3 * 1 + 1/3 * 2/3
    assert finding.average_precision(judged(finding, [9, 8, 7, 6], [1, 0, 1, 0], 3)) == pytest.approx(5 / 9)
    # the best precision at a recall or above: 1/3 * (3/4 three times), although the first is wrong
    assert finding.average_precision(judged(finding, [9, 8, 7, 6], [0, 1, 1, 1], 3)) == pytest.approx(3 / 4)
    assert finding.average_precision(judged(finding, [6, 9, 7, 8], [0, 1, 1, 1], 3)) == 1
    # equal scores count together: 2 of 4 are right, in whatever order they come
    for right in ([1, 1, 0, 0], [0, 0, 1, 1]):
        assert finding.average_precision(judged(finding, [5, 5, 5, 5], right, 2)) == 0.5


@pytest.mark.parametrize("seed", range(5))
def test_average_precision_against_scikit_learn(finding, seed):
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(seed)
    right = generator.random(200) < 0.3
    scores = np.round(generator.normal(size=200) + right, 1)  # many equal ones
    mine = finding.average_precision(judged(finding, scores, right, int(right.sum())))
    precision, recall, _ = metrics.precision_recall_curve(right, scores)  # recall falls
    best = np.maximum.accumulate(precision)
    assert mine == pytest.approx(-np.sum(np.diff(recall) * best[:-1]))
    assert mine >= metrics.average_precision_score(right, scores)  # which has no "or any higher one"


def test_hits_and_false_alarms_by_hand(finding):
    found = judged(finding, [1, 9, 7, 7, 3], [1, 1, 0, 1, 0], 4)
    thresholds, hits, alarms = finding.curve(found)
    np.testing.assert_array_equal(thresholds, [9, 7, 3, 1])
    np.testing.assert_array_equal(hits, [1, 2, 2, 3])
    np.testing.assert_array_equal(alarms, [0, 1, 2, 2])
    assert [finding.hits_at(found, n) for n in (0, 1, 1.9, 2)] == [0.25, 0.5, 0.5, 0.75]
    assert finding.hits_at(judged(finding, [9], [0], 4), 0) == 0
    both = finding.pooled([found, judged(finding, [8], [1], 2)])
    assert (both.positives, int(both.right.sum()), len(both.scores)) == (6, 4, 6)


def test_log_odds_against_scipy(finding, x64):
    special = pytest.importorskip("scipy.special")
    logits = np.random.default_rng(0).normal(size=(3, 4, 5)) * 3
    truth = special.logit(special.softmax(logits, axis=-1))
    np.testing.assert_allclose(finding.log_odds(jnp.asarray(logits)), truth, rtol=1e-10)
    sure = finding.log_odds(jnp.array([[200.0, 0.0], [300.0, 0.0]]))
    np.testing.assert_allclose(sure, [[200, -200], [300, -300]])  # both have probability 1 to rounding


# Pictures


def marks(count=40, side=12):
    """Forged digits: digit d is a bar d + 1 pixels long."""
    labels = np.arange(count, dtype=np.int32) % 10
    images = np.zeros((count, side, side, 1), np.float32)
    for image, label in zip(images, labels, strict=True):
        image[5:7, 1 : label + 2] = 1
    return images, labels


def test_pictures_hold_what_they_say(examples):
    images, labels = marks()
    made = examples("clutter").scenes(images, labels, 20, seed=3, size=80, digits=(2, 5), noise=0)
    assert len(made) == 20
    for image, digits, centres in made:
        assert image.shape == (80, 80, 1)
        assert image.dtype == np.float32
        assert 0 <= image.min() <= image.max() <= 1
        assert 2 <= len(digits) == len(centres) <= 5
        for digit, centre in zip(digits, centres, strict=True):
            row, column = (centre - 6).astype(int)
            assert image[row + 5 : row + 7, column + 1 : column + digit + 2].min() >= 0.69  # its ink
        gaps = np.abs(centres[:, None] - centres).max(-1)
        assert gaps[~np.eye(len(digits), dtype=bool)].min(initial=99) >= 12
    told = np.concatenate([digits for _, digits, _ in made])[:40]
    assert np.bincount(told, minlength=10).max() <= 4  # each of the 40 once before any comes again


def test_pictures_are_those_of_their_seed(examples):
    scenes = examples("clutter").scenes
    one, same, other = (scenes(*marks(), 2, seed=seed, size=64, digits=(1, 2)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one[1].image, same[1].image)
    assert np.abs(one[1].image - other[1].image).max() > 0.3


def test_a_line_is_where_it_should_be(examples):
    image = np.zeros((40, 40), np.float32)
    examples("clutter").stroke(image, np.array([20.0, 20.0]), 0.0, 20.0, 1.0, 0.8)
    rows, columns = np.nonzero(image > 0.3)
    assert set(rows.tolist()) == {19, 20, 21}  # half the ink a pixel off: 1.5 - 1
    assert image[20, 12:28].min() == pytest.approx(0.8, abs=0.01)
    assert (columns.min(), columns.max()) == (9, 31)
    examples("clutter").stroke(image, np.array([0.0, 39.0]), 0.8, 90.0, 1.5, 1.0)  # most of it is outside


def test_patches_are_cut_where_they_should_be(examples):
    clutter = examples("clutter")
    rows, columns = np.mgrid[:100, :100]
    image = (1000.0 * rows + columns)[..., None]  # a pixel tells where it is
    centres = np.array([[30.0, 40.0], [70.0, 60.0]])
    scene = clutter.Scene(image, np.array([3, 8], np.int32), centres)
    x, y = clutter.patches([scene] * 50, 32, seed=0, jitter=2, nothing=3)
    assert x.shape == (400, 32, 32, 1)
    assert np.bincount(y, minlength=11).tolist() == [0, 0, 0, 50, 0, 0, 0, 0, 50, 0, 300]
    middles = np.stack([x[:, 0, 0, 0] // 1000, x[:, 0, 0, 0] % 1000], axis=1) + 16
    np.testing.assert_array_equal(x[:, 31, 31, 0] - x[:, 0, 0, 0], 31 * 1001)
    for label, centre in zip((3, 8), centres, strict=True):
        off = np.abs(middles[y == label] - centre)
        assert off.max() == 2
        assert off.min() == 0
    distance = np.linalg.norm(middles[y == clutter.NOTHING, None] - centres, axis=-1).min(1)
    assert distance.min() >= clutter.NEAR
    assert (distance < 16).mean() > 0.2  # some are beside a digit


# Sound


def tones(speakers=("ann", "bob"), takes=4):
    """Forged recordings: digit d is a tone of 400 + 200 d Hz; bob's are a little higher."""
    rows = [(digit, name, take) for digit in range(10) for name in speakers for take in range(takes)]
    time = np.arange(2400) / 8000
    samples = [
        np.sin(2 * np.pi * (400 + 200 * d + 40 * (name == "bob")) * time[: 1600 + 200 * t]) for d, name, t in rows
    ]
    digits, names, numbers = map(np.array, zip(*rows, strict=True))
    waves = tuple(wave.astype(np.float32) for wave in samples)
    return fcnn.data.Recordings(waves, digits.astype(np.int32), names, numbers.astype(np.int32), 8000, "nobody's")


def pitch(wave):
    """The frequency of the strongest tone, in Hz."""
    return np.abs(np.fft.rfft(wave * np.hanning(len(wave)))).argmax() * 8000 / len(wave)


def test_words_are_said_when_the_sound_says(examples):
    continuous = examples("continuous")
    sounds = list(continuous.sounds(tones(), ["ann", "bob"], 4, seed=0, signal_to_noise=(60, 60)))
    assert len(sounds) == 4
    for minute, (samples, labels, middles) in enumerate(sounds):
        assert samples.shape == (480_000,)
        assert samples.dtype == np.float32
        assert len(labels) == len(middles) > 30
        assert np.diff(middles).min() > 0.2  # the shortest word and the shortest pause: 0.3
        for label, moment in zip(labels, middles, strict=True):
            begin = int(moment * 8000) - 400
            bob = 40 * (minute % 2)  # they take turns
            assert pitch(samples[begin : begin + 800]) == pytest.approx(400 + 200 * label + bob, abs=10)


def test_half_words_are_no_words(examples):
    continuous = examples("continuous")
    (minute,) = continuous.sounds(tones(), ["ann"], 1, seed=0, distractors=1.0)
    assert len(minute.labels) == len(minute.middles) == 0
    generator, a, b = np.random.default_rng(0), np.arange(6.0), np.arange(10.0, 18.0)
    made = {tuple(continuous.no_word(generator, a, 1, b, 2).tolist()) for _ in range(50)}
    assert made == {(0, 1, 2, 14, 15, 16, 17), (5, 4, 3, 2, 1, 0)}
    assert continuous.no_word(generator, a, 1, b, 1).tolist() == [5, 4, 3, 2, 1, 0]


def test_minutes_are_joined_in_order(examples):
    continuous = examples("continuous")
    minutes = list(continuous.sounds(tones(), ["ann"], 2, seed=0))
    joined = continuous.joined(minutes)
    np.testing.assert_array_equal(joined.samples[480_000:], minutes[1].samples)
    np.testing.assert_array_equal(joined.labels, np.concatenate([minute.labels for minute in minutes]))
    np.testing.assert_allclose(joined.middles[len(minutes[0].labels) :], minutes[1].middles + 60, rtol=1e-6)


def test_played_faster_a_tone_is_higher_and_shorter(examples):
    wave = np.sin(2 * np.pi * 500 * np.arange(8000) / 8000).astype(np.float32)
    faster = examples("continuous").resampled(wave, 1.25)
    assert len(faster) == pytest.approx(8000 / 1.25, abs=2)
    assert pitch(faster) == pytest.approx(625, abs=2)
    assert examples("continuous").resampled(wave, 1.0) is wave


def test_noise_has_power_one_and_falls_with_the_frequency(examples):
    noise = examples("continuous").noise
    for seed in range(5):
        wave = noise(np.random.default_rng(seed), 16000)
        assert np.mean(wave**2) == pytest.approx(1, rel=0.01)
        power = np.abs(np.fft.rfft(wave)) ** 2  # a bin for every half hertz
        assert power[200:1000].mean() > 0.9 * power[4000:].mean()


def test_a_stretch_is_cut_around_its_word(examples):
    words, continuous = examples("find_words"), examples("continuous")
    samples = np.full(3 * 8000, 1e-4, np.float32)
    moments = np.array([0.9, 2.0], np.float32)
    samples[(moments * 8000).astype(int)] = 1.0  # a click is loudest in the frames around it
    sound = continuous.Sound(samples, np.array([4, 6], np.int32), moments)
    x, y = words.patches([sound], seed=0, jitter=0, nothing=20)
    assert x.shape == (42, words.WINDOW, 40)
    loudest = x.mean(-1).argmax(1)
    middle_frames = {words.WINDOW // 2 - 1, words.WINDOW // 2}
    assert y[:2].tolist() == [4, 6]
    assert set(loudest[:2].tolist()) <= middle_frames
    assert (y[2:] == continuous.NOTHING).all()
    assert not set(loudest[2:].tolist()) & middle_frames


# The commands, in small


@pytest.mark.slow
def test_digits_are_sought_and_reported(examples, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    example, (images, labels) = examples("find_digits"), marks(side=28)
    data = fcnn.data.Dataset((images, labels), (images, labels), tuple("0123456789"), "nobody's")
    monkeypatch.setattr(fcnn.data, "mnist", lambda: data)
    monkeypatch.setattr(example, "TRAINING_PICTURES", 20)
    monkeypatch.setattr(example, "TEST_PICTURES", 6)
    monkeypatch.setattr("sys.argv", ["", "--seeds", "1", "--epochs", "1", "--quiet", "--out", str(tmp_path / "out")])
    assert example.main() == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["test"]["pictures"] == 6
    assert 30 <= result["test"]["digits"] <= 60
    for way in ("patches", "pictures"):
        assert (tmp_path / "out" / f"found_{way}.png").stat().st_size > 10_000
        assert 0 <= result["trained_on"][way]["average_precision"]["mean"] <= 1
        assert result["trained_on"][way]["average_precision"]["n"] == 1
    assert result["versions"]["jax"] == jax.__version__


def test_words_are_sought_and_reported(examples, monkeypatch, tmp_path):
    pytest.importorskip("matplotlib")
    example = examples("find_words")
    monkeypatch.setattr(fcnn.data, "spoken_digit_recordings", tones)
    monkeypatch.setattr(example, "TRAINING_MINUTES", 2)
    monkeypatch.setattr(example, "TEST_MINUTES", 1)
    monkeypatch.setattr("sys.argv", ["", "--seeds", "1", "--epochs", "1", "--quiet", "--out", str(tmp_path / "out")])
    assert example.main() == 0
    result = json.loads((tmp_path / "out" / "result.json").read_text())
    assert result["speakers_held_out"] == ["ann"]
    assert result["all_hits"]["n"] == 1
    assert 0 <= result["all_hits"]["mean"] <= 1
    assert result["words"]["mean"] > 30
    assert (tmp_path / "out" / "found_ann.png").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["find_digits", "find_words"])
def test_missing_data_are_said_in_one_line(examples, monkeypatch, tmp_path, capsys, name):
    def missing():
        raise FileNotFoundError("there is no file")

    for load in ("mnist", "spoken_digit_recordings"):
        monkeypatch.setattr(fcnn.data, load, missing)
    monkeypatch.setattr("sys.argv", ["", "--out", str(tmp_path / "out")])
    assert examples(name).main() == 1
    assert capsys.readouterr().err == "cannot read the data: there is no file\n"
    assert not (tmp_path / "out").exists()
