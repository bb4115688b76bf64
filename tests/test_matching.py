"""Layers and their counterparts by order, name and shape, in dicts and lists as Flax and Keras give them."""

import jax
import numpy as np
import pytest

import fcnn
from fcnn import interop


def dense(number, n=3):
    return {"bias": np.full(n, float(number)), "kernel": np.ones((n, n))}


def numbers(params, *paths):
    """What the biases hold, by the paths of their layers."""
    found = []
    for path in paths:
        tree = params
        for step in path.split("/"):
            tree = tree[step]
        found.append(float(tree["bias"][0]))
    return found


def chain(count):
    return fcnn.serial(*[fcnn.Dense(3)] * count), [f"dense{i}" for i in range(1, count + 1)]


def test_sorted_names_are_read_by_their_numbers():
    net, paths = chain(12)
    source = {name: dense(name.split("_")[1]) for name in sorted(f"Dense_{i}" for i in range(12))}
    assert list(source)[1:3] == ["Dense_1", "Dense_10"]
    assert numbers(interop.from_flax(net, source, shape=(3,))[0], *paths) == list(range(12))
    blocks = {f"Block_{i}": {"Dense_0": dense(2 * i), "Dense_1": dense(2 * i + 1)} for i in (0, 1, 10, 2, 3, 4)}
    blocks["Block_10"] = {"Dense_0": dense(10), "Dense_1": dense(11)}
    assert numbers(interop.from_flax(net, blocks, shape=(3,))[0], *paths) == list(range(12))


def test_names_in_another_order_than_the_alphabets_are_in_the_order_of_computation():
    net, paths = chain(3)
    source = {"stem": dense(0), "body": dense(1), "head": dense(2)}
    assert numbers(interop.from_flax(net, source, shape=(3,))[0], *paths) == [0, 1, 2]


def test_shapes_decide_where_the_order_is_lost():
    net = fcnn.serial(fcnn.Dense(4), fcnn.Dense(3), fcnn.Dense(4), fcnn.Dense(2))
    shapes = {"a": (4, 2), "b": (3, 4), "c": (4, 3), "d": (3, 4)}
    source = {name: {"bias": np.full(k[1], float(ord(name))), "kernel": np.ones(k)} for name, k in shapes.items()}
    with pytest.raises(ValueError, match=r"dense1 with .* may be b or d, of one shape and in no order that is known"):
        interop.from_flax(net, source, shape=(3,))
    params, _ = interop.from_flax(net, source, shape=(3,), names={"dense3": "b"})
    assert [chr(int(n)) for n in numbers(params, "dense1", "dense2", "dense3", "dense4")] == ["d", "c", "b", "a"]
    params, _ = interop.from_flax(net, source, shape=(3,), order={"d": source["d"], **source})
    assert [chr(int(n)) for n in numbers(params, "dense1", "dense2", "dense3", "dense4")] == ["d", "c", "b", "a"]


def test_the_only_choice_that_leaves_no_layer_out_is_taken():
    """Either kernel could be the transposed convolution's, whose axes may be swapped; only one the other layer's."""
    net = fcnn.serial(fcnn.ConvTranspose(4, 3, bias=False), fcnn.Conv(4, 3, groups=2, bias=False))
    plain, swapped = np.arange(72.0).reshape(3, 3, 2, 4), -np.arange(72.0).reshape(3, 3, 4, 2)
    params, _ = interop.from_flax(net, {"a": {"kernel": plain}, "b": {"kernel": swapped}}, shape=(5, 5, 2))
    np.testing.assert_array_equal(params["conv1"]["kernel"], plain)
    np.testing.assert_array_equal(params["conv_transpose1"]["kernel"], swapped.swapaxes(2, 3))


def test_hundreds_of_choices_are_told_in_the_first_of_them():
    net, _ = chain(60)
    source = {f"{family}_{i}": dense(i) for family in "ab" for i in range(30)}
    with pytest.raises(ValueError, match=r"dense1 with .* may be a_0 or b_0(.|\n)*and \d+ more"):
        interop.from_flax(net, dict(sorted(source.items())), shape=(3,))


def test_equal_names_decide_where_the_order_is_lost():
    dense = {"kernel": np.ones((3, 3)), "bias": np.zeros(3)}
    theirs = {name: {**dense, "bias": np.full(3, float(n))} for n, name in enumerate(("body", "head", "stem"))}
    net = fcnn.serial(stem=fcnn.Dense(3), body=fcnn.Dense(3), head=fcnn.Dense(3))
    params, _ = interop.from_flax(net, jax.tree.map(np.asarray, theirs), shape=(3,))
    assert [float(params[name]["bias"][0]) for name in ("body", "head", "stem")] == [0, 1, 2]


SMALL = fcnn.serial(fcnn.Conv(2, 3), fcnn.BatchNorm(), fcnn.Flatten(), fcnn.Dense(3))


def small(**changed):
    params = {
        "Conv_0": {"kernel": np.ones((3, 3, 1, 2)), "bias": np.zeros(2)},
        "BatchNorm_0": {"scale": np.ones(2), "bias": np.zeros(2)},
        "Dense_0": {"kernel": np.ones((8, 3)), "bias": np.zeros(3)},
    } | changed
    statistics = {"BatchNorm_0": {"mean": np.zeros(2), "var": np.ones(2)}}
    return {
        "params": {k: v for k, v in params.items() if v}, "batch_stats": statistics, "cache": {"x": np.ones(3)}
    }  # fmt: skip


MISTAKES = {
    "no source": (7, {}, TypeError, "source is 7 of type int; give Linen's variables or params, an NNX module"),
    "no array": (small(Dense_0={"kernel": "a"}), {}, TypeError, "the entry 'Dense_0/kernel' is 'a' .* not an array"),
    "empty": ({}, {}, ValueError, r"3 of 0 entries do not fit:\n  conv1 with .* has no counterpart in the source"),
    "missing": (small(Dense_0={}), {}, ValueError, r"dense1 with bias \(3,\), kernel .* no counterpart in the source"),
    "extra": (small(Dense_1={"kernel": np.ones((5, 6))}), {}, ValueError, r"Dense_1 with \(5, 6\) has no counterpart"),
    "no statistics": (small()["params"], {}, ValueError, r"BatchNorm_0 with \(2,\), \(2,\) has no counterpart here"),
    "misshapen": (
        small(Conv_0={"kernel": np.ones((9, 1, 1, 2)), "bias": np.zeros(2)}),
        {},
        ValueError,
        r"Conv_0/kernel has shape \(9, 1, 1, 2\), conv1/kernel has \(3, 3, 1, 2\) here",
    ),
    "channels first": (
        small(Conv_0={"kernel": np.ones((2, 1, 3, 3)), "bias": np.zeros(2)}),
        {},
        ValueError,
        r"Conv_0/kernel has shape \(2, 1, 3, 3\), conv1/kernel has \(3, 3, 1, 2\) here",
    ),
    "an unknown module": (small(), {"names": {"conv1": "stem"}}, ValueError, "names= gives 'stem' for conv1"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_does_not_fit_is_named(name):
    source, options, kind, words = MISTAKES[name]
    with pytest.raises(kind, match=words):
        interop.from_flax(SMALL, source, shape=(4, 4, 1), **options)


def test_all_that_is_wrong_is_told_at_once():
    source = small(Dense_0={}, Dense_1={"kernel": np.ones((5, 6))}, Conv_0={"kernel": np.ones((9, 1, 1, 2))})
    with pytest.raises(ValueError, match="from_flax: 2 of 3 entries") as error:
        interop.from_flax(SMALL, source, shape=(4, 4, 1))
    assert all(word in str(error.value) for word in ("conv1", "Conv_0", "dense1", "Dense_1"))


def test_a_kernel_that_may_be_mirrored_or_not_is_an_error():
    net = fcnn.serial(fcnn.ConvTranspose(2, 3))
    source = {"up": {"kernel": np.arange(36.0).reshape(3, 3, 2, 2), "bias": np.zeros(2)}}
    with pytest.raises(ValueError, match=r"\(up for conv_transpose1\); give transpose_kernel=False, which is Flax's"):
        interop.from_flax(net, source, shape=(4, 4, 2))
    kernel = source["up"]["kernel"]
    for flag, wanted in ((False, kernel[::-1, ::-1]), (True, kernel.swapaxes(2, 3))):
        params, _ = interop.from_flax(net, source, shape=(4, 4, 2), transpose_kernel=flag)
        np.testing.assert_array_equal(params["conv_transpose1"]["kernel"], wanted)


def test_layers_of_arrays_alone_are_as_keras_has_them():
    depthwise = np.arange(18.0).reshape(3, 3, 1, 2)
    depthwise = np.concatenate([depthwise, depthwise + 100], 2)
    net = fcnn.serial(
        fcnn.Conv(4, 3, groups=2), fcnn.PReLU(per_channel=True), fcnn.ConvTranspose(2, 2, stride=2),
        fcnn.BatchNorm(scale=False), fcnn.Conv(4, 3, groups=2, bias=False), fcnn.Conv(5, 1), fcnn.Flatten(),
        fcnn.Dense(3),
    )  # fmt: skip
    transposed = np.arange(32.0).reshape(2, 2, 2, 4)
    source = [
        [depthwise, np.zeros(4)], [], [np.arange(4.0).reshape(1, 1, 4)], [transposed, np.zeros(2)],
        [np.full(2, 1.0), np.full(2, 2.0), np.full(2, 3.0)], [depthwise, np.ones((1, 1, 4, 5)), np.zeros(5)],
        [np.ones((20, 3)), np.zeros(3)],
    ]  # fmt: skip
    params, state = interop.from_keras(net, source, shape=(4, 4, 2))
    kernel = params["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel[..., 0, :2], depthwise[:, :, 0])
    np.testing.assert_array_equal(kernel[..., 0, 2:], depthwise[:, :, 1])
    np.testing.assert_array_equal(params["conv_transpose1"]["kernel"], transposed.swapaxes(2, 3))
    assert params["prelu1"]["slope"].tolist() == [0, 1, 2, 3]
    statistics = (params["batch_norm1"]["bias"], state["batch_norm1"]["mean"], state["batch_norm1"]["variance"])
    assert [float(a[0]) for a in statistics] == [1, 2, 3]
    with pytest.raises(TypeError, match=r"source is a list; give a Keras model, .* or \[layer.get_weights\(\)"):
        interop.from_keras(net, [array for layer in source for array in layer], shape=(4, 4, 2))


def test_what_is_ignored_is_left_out():
    source = small(aux={"Dense_0": {"kernel": np.ones((2, 2))}})
    found = interop.from_flax(SMALL, source, shape=(4, 4, 1), ignore=("aux",))
    jax.tree.map(np.testing.assert_array_equal, found, interop.from_flax(SMALL, small(), shape=(4, 4, 1)))
