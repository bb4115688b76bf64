"""examples/finetune.py: what is frozen stays bit for bit, the three trainings begin and end where they say."""

import json
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

import fcnn

EXAMPLES = Path(__file__).parents[1] / "examples"


@pytest.fixture
def example(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLES)
    return __import__("finetune")


def forged(count, seed):
    """Noise with a bright bar, at a height that is the label's."""
    x, y = np.random.default_rng(seed).random((count, 28, 28, 1), np.float32) / 2, np.arange(count, dtype=np.int32) % 10
    for image, label in zip(x, y, strict=True):
        image[2 * label + 4 : 2 * label + 6] = 1
    return x, y


def bits(tree):
    return [np.asarray(a).tobytes() for a in jax.tree.leaves(tree)]


@pytest.mark.slow
def test_the_command(example, monkeypatch, tmp_path, capsys):
    pytest.importorskip("matplotlib", reason="pictures: pip install matplotlib")
    digits = fcnn.data.Dataset(forged(60, 2), forged(30, 3), tuple("0123456789"), "forged: nobody's")
    monkeypatch.setattr(fcnn.data, "fashion_mnist", lambda: digits._replace(train=forged(128, 0), test=forged(20, 1)))
    monkeypatch.setattr(fcnn.data, "mnist", lambda: digits)
    monkeypatch.setattr(example, "HELD_OUT", 20)
    monkeypatch.setattr(example, "EXAMPLES", 30)  # one step in an epoch
    calls, fit = [], fcnn.fit
    monkeypatch.setattr(
        fcnn, "fit", lambda *given, **named: calls.append((given, named, fit(*given, **named))) or calls[-1][2]
    )
    words = ["--seeds", "2", "--epochs", "1", "--steps", "3", "--pictures", "2", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["finetune.py", *words])
    assert example.main() == 0
    result = json.loads((tmp_path / "result.json").read_text())
    ((_, _, clothes), *calls) = calls
    trunk = {name: clothes.params[name] for name in clothes.params if name != "dense1"}
    found = {way: [] for way in ("from nothing", "frozen", "unfrozen")}
    for seed in range(2):
        by_way = dict(zip(found, calls[3 * seed : 3 * seed + 3], strict=True))
        (_, nothing, _), (_, given, frozen), (_, onward, unfrozen) = by_way.values()
        assert [int(run.train.step) for _, _, run in by_way.values()] == [6, 3, 3]
        # both begin with the same new head, one above what learned clothes
        assert bits(given["params"]["head"]) == bits(nothing["params"]["head"])
        assert bits((given["params"]["trunk"], given["state"])) == bits((trunk, {"trunk": clothes.state}))
        assert bits(nothing["params"]["trunk"]) != bits(trunk)
        # frozen: not a bit of the trunk moves, and the head does; unfrozen: on from there, and all moves
        assert bits((frozen.params["trunk"], frozen.state["trunk"])) == bits((trunk, clothes.state))
        assert bits(frozen.params["head"]) != bits(given["params"]["head"])
        assert bits((onward["params"], onward["state"])) == bits((frozen.params, frozen.state))
        after = bits((unfrozen.params, unfrozen.state))
        assert not any(a == b for a, b in zip(bits((frozen.params, frozen.state)), after, strict=True))
        for way, ((_, (x, y)), _, run) in by_way.items():
            assert len(x) == len(y) == 30
            assert len({image.tobytes() for image in x}) == 20  # the others are repeated
            assert np.bincount(y).tolist() == [4] * 5 + [2] * 5
            said = np.asarray(example.DIGITS.apply(run.params, digits.test[0], state=run.state)).argmax(1)
            found[way].append((said == digits.test[1]).mean())
    for way, shares in found.items():
        of_way = result["test_accuracy"][way]["2"]
        assert of_way["seeds"] == pytest.approx(shares, abs=1e-6)
        assert (of_way["mean"], of_way["std"], of_way["n"]) == pytest.approx(
            (np.mean(shares), np.std(shares), 2), abs=1e-6
        )
    arrays = len(bits((trunk, clothes.state)))
    assert result["arrays_of_the_trunk"] == arrays
    assert result["of_these_changed"] == {"frozen": 0, "unfrozen": arrays}
    assert (result["seeds"], result["test_images"], result["versions"]["jax"]) == ([0, 1], 30, jax.__version__)
    assert (tmp_path / "finetune.png").stat().st_size > 10_000
    assert f"of the trunk's {arrays} arrays changed: frozen 0, unfrozen {arrays}" in capsys.readouterr().out


def test_few_pictures_are_so_many_of_each_class_and_never_those_held_out(example, monkeypatch):
    monkeypatch.setattr(example, "HELD_OUT", 40)
    x, y = np.arange(100, dtype=np.float32)[:, None, None, None], np.arange(100, dtype=np.int32) % 10
    data = fcnn.data.Dataset((x, y), (-1 - x, y), tuple("0123456789"), "forged: nobody's")
    drawn = {}
    for seed in range(20):
        for count in (1, 3, 6):
            own, labels = example.few(data, count, seed)
            places = own.ravel().astype(int)
            assert np.bincount(labels).tolist() == [count] * 10
            np.testing.assert_array_equal(labels, places % 10)
            assert len(set(places)) == len(places)
            assert 0 <= min(places) <= max(places) < 60
            drawn[seed, count] = set(places.tolist())
        assert drawn[seed, 1] < drawn[seed, 3] < drawn[seed, 6]
    assert len({frozenset(drawn[seed, 3]) for seed in range(20)}) == 20


def test_one_bit_of_a_trunk_is_seen(example):
    run = fcnn.training.start(example.DIGITS, example.WAYS["frozen"], jax.random.key(0), (28, 28, 1))
    trunk = jax.tree.map(np.array, {"params": run.params["trunk"], "state": run.state["trunk"]})
    assert example.changed(trunk, run) == 0
    mean = trunk["state"]["batch_norm1"]["mean"]
    mean[0] = -mean[0]  # 0.0 and -0.0 are equal, but not the same
    assert (mean == 0).all()
    assert example.changed(trunk, run) == 1


@pytest.mark.parametrize("words", [["--seeds", "0"], ["--steps", "0"], ["--pictures", "3", "0"], ["--epochs", "0"]])
def test_numbers_that_make_no_sense_are_refused(example, monkeypatch, capsys, words):
    monkeypatch.setattr(sys, "argv", ["finetune.py", *words])
    with pytest.raises(SystemExit):
        example.main()
    assert "must be at least 1" in capsys.readouterr().err


def test_missing_data_are_said_in_one_line(example, monkeypatch, tmp_path, capsys):
    def missing():
        raise FileNotFoundError("there is no file")

    monkeypatch.setattr(fcnn.data, "fashion_mnist", missing)
    monkeypatch.setattr(sys, "argv", ["finetune.py", "--out", str(tmp_path / "out")])
    assert example.main() == 1
    assert capsys.readouterr().err == "cannot read the data: there is no file\n"
    assert not (tmp_path / "out").exists()
