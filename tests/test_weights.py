"""Files of weights: what is checked when they are read, and what they say of themselves."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import weights_fuzz

import fcnn
from fcnn.interop import load_weights, read_metadata, save_weights

pytest.importorskip("safetensors", reason="weights are files of safetensors: pip install 'fcnn[interop]'")

NET = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))


@pytest.fixture
def made(tmp_path):
    params, state = NET.init(jax.random.key(0), (4, 4, 1)), NET.init_state((4, 4, 1))
    path = save_weights(tmp_path / "net.safetensors", params, state, net=NET, metadata={"data": "digits"})
    return path, params, state


def header(path):
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size]), raw[8 + size :]


def put(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_the_file_says_which_network_and_version_it_is_of(made):
    path, _, _ = made
    words = read_metadata(path)
    assert words == {"fcnn": fcnn.__version__, "network": repr(NET), "data": "digits"}
    assert eval(words["network"]) == NET


def test_checksums_are_those_of_hashlib(made):
    import hashlib

    path, params, _ = made
    sums = json.loads(header(path)[0]["__metadata__"]["sha256"])
    kernel = np.asarray(params["conv1"]["kernel"])
    assert sums["params/conv1/kernel"] == hashlib.sha256(b"float32 (3, 3, 1, 2) " + kernel.tobytes()).hexdigest()


def test_every_flipped_bit_of_the_arrays_is_found(made):
    path, _, _ = made
    raw = path.read_bytes()
    begin = 8 + struct.unpack("<Q", raw[:8])[0]
    for place in range(begin, len(raw)):
        data = bytearray(raw)
        data[place] ^= 1 << place % 8
        path.write_bytes(data)
        with pytest.raises(ValueError, match=r"is damaged: .* is not what was written; its SHA-256 is another"):
            load_weights(path)


def test_a_thousand_faulty_files_are_refused_or_unchanged(tmp_path):
    found = weights_fuzz.run(1000, 0, tmp_path)
    assert not found["faults"], found["faults"]
    assert found["refused"] > 900


FAULTS = {
    "overlapping": lambda h: h["params/conv1/bias"].update(data_offsets=[0, 8]),
    "renamed": lambda h: h.update({"params/conv9/bias": h.pop("params/conv1/bias")}),
    "another dtype": lambda h: h["params/conv1/bias"].update(dtype="I32"),
    "an unknown dtype": lambda h: h["params/conv1/bias"].update(dtype="F4"),
    "another shape": lambda h: h["params/conv1/kernel"].update(shape=[3, 3, 2, 1]),
    "no checksums": lambda h: h["__metadata__"].pop("sha256"),
    "checksums that are none": lambda h: h["__metadata__"].update(sha256="[]"),
    "another network": lambda h: h["__metadata__"].update(network="fcnn.serial()"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_header_that_was_changed_is_refused(made, name):
    path, _, _ = made
    head, data = header(path)
    FAULTS[name](head)
    put(path, head, data)
    with pytest.raises(ValueError, match=r"is damaged|has the dtype"):
        load_weights(path)


def test_a_header_of_any_length_is_refused(made):
    path, _, _ = made
    raw = path.read_bytes()
    for size in (0, 1, len(raw), 2**31, 2**62, 2**64 - 1):
        path.write_bytes(struct.pack("<Q", size) + raw[8:])
        with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
            load_weights(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused_unless_asked_for(tmp_path, value):
    params = {"dense1": {"kernel": jnp.ones((2, 3)).at[1, 2].set(value)}}
    path = tmp_path / "net.safetensors"
    with pytest.raises(ValueError, match=r"params/dense1/kernel has 1 numbers that are not finite, of 6, .* \[1, 2\]"):
        save_weights(path, params)
    assert not path.exists()
    save_weights(path, params, finite=False)
    with pytest.raises(ValueError, match="load them with finite=False"):
        load_weights(path)
    np.testing.assert_array_equal(load_weights(path, finite=False)[0]["dense1"]["kernel"], params["dense1"]["kernel"])


def test_weights_that_fit_are_loaded(made):
    path, params, state = made
    for options in ({"like": params}, {"like": (params, state)}, {"like": NET, "shape": (4, 4, 1)}):
        jax.tree.map(np.testing.assert_array_equal, load_weights(path, **options), (params, state))


def test_all_that_does_not_fit_is_named_with_the_network_that_was_saved(made):
    path, _, _ = made
    other = fcnn.serial(fcnn.Conv(2, 5), fcnn.Flatten(), fcnn.Dense(3, bias=False), fcnn.Dense(1))
    with pytest.raises(ValueError, match="does not fit") as error:
        load_weights(path, like=other, shape=(6, 6, 1))
    said = str(error.value)
    for words in (
        "params/conv1/kernel is float32 (3, 3, 1, 2), expected float32 (5, 5, 1, 2)",
        "params/batch_norm1/scale is one too many",
        "params/dense1/bias is one too many",
        "params/dense2/kernel is missing",
        "state/batch_norm1/mean is one too many",
        f"the weights are those of {NET!r}",
    ):
        assert words in said, said


def test_files_that_were_written_without_checksums_are_read(tmp_path):
    from safetensors.numpy import save_file

    save_file({"params/a/bias": np.ones(2, np.float32)}, tmp_path / "old.safetensors")
    assert load_weights(tmp_path / "old.safetensors")[0]["a"]["bias"].tolist() == [1, 1]


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"metadata": {"accuracy": 0.9}}, TypeError, "metadata has 'accuracy': 0.9; names and values must be strings"),
        ({"metadata": {"sha256": "x"}}, ValueError, "a name that save_weights writes itself"),
    ],
)
def test_mistakes_at_saving_are_explained(tmp_path, options, kind, words):
    with pytest.raises(kind, match=words):
        save_weights(tmp_path / "net.safetensors", {"a": jnp.ones(1)}, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"like": NET}, ValueError, "like is a network; give shape="),
        ({"like": 3}, TypeError, "like must be params, "),
    ],
)
def test_mistakes_at_loading_are_explained(made, options, kind, words):
    with pytest.raises(kind, match=words):
        load_weights(made[0], **options)
