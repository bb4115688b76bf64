"""Backpropagation by the reference: the worked examples 14 to 20."""

import itertools
import math

import numpy as np
import pytest
from reference_cases import every_case
from reference_oracle import assert_close, differences, draw, normal, one_by_one, run

from fcnn import reference as ref


def test_example_14_a_sigmoid_neuron_as_a_graph_of_gates():
    w0, x0, w1, x1, w2 = (np.array(v) for v in (2.0, -1.0, -3.0, -2.0, -3.0))
    first_product, second_product, total, squash = ref.Multiply(), ref.Multiply(), ref.Add(), ref.Sigmoid()
    y = squash.forward(total.forward(first_product.forward(w0, x0), second_product.forward(w1, x1), w2))
    (dz,) = squash.backward(np.array(1.0))
    d_first, d_second, dw2 = total.backward(dz)
    gradients = (*first_product.backward(d_first), *second_product.backward(d_second), dw2)
    assert round(float(y), 2) == 0.73
    assert [round(float(g), 1) for g in gradients] == [-0.2, 0.4, -0.4, -0.6, 0.2]
    tape = ref.Tape()
    values = [tape.value(v) for v in (w0, x0, w1, x1, w2)]
    out = ref.apply(ref.Sigmoid(), values[0] * values[1] + values[2] * values[3] + values[4])
    ref.backward(out, np.array(1.0))
    assert_close([float(v.gradient) for v in values], [float(g) for g in gradients])


@every_case
def test_example_15_a_gradient_has_the_shape_of_its_variable(case):
    node = case.make()
    _, _, gradients, of_params = run(node, *case.inputs)
    assert [g.shape for g in gradients] == [x.shape for x in case.inputs]
    assert {name: g.shape for name, g in of_params.items()} == {name: p.shape for name, p in node.params.items()}


def test_example_16_the_deltas_of_squared_error():
    first_layer, second_layer = ref.Dense(kernel=draw(3, 4)), ref.Dense(kernel=draw(4, 2))
    net, loss = ref.Chain([first_layer, ref.Tanh(), second_layer, ref.Sigmoid()]), ref.SquaredError()
    x, y = draw(1, 3), draw(1, 2)
    a = net.forward(x)
    loss.forward(a, y)
    net.backward(loss.backward() * a.size)  # the lecture's loss is the sum, not the mean
    hidden = np.tanh(x @ first_layer.params["kernel"])
    last_delta = 2 * (a - y) * a * (1 - a)
    delta = (1 - hidden**2) * (second_layer.params["kernel"] @ last_delta[0])
    assert_close(second_layer.gradients["kernel"], np.outer(hidden, last_delta))
    assert_close(first_layer.gradients["kernel"], np.outer(x, delta))


def test_example_17_softmax_and_the_gradient_of_its_cross_entropy():
    scores, loss = np.array([[2.0, 0.7, 0.2, -0.3, -0.6, -2.5]]), ref.SoftmaxCrossEntropy()
    node = ref.Softmax()
    p = node.forward(scores)
    assert np.abs(p - [0.616, 0.168, 0.102, 0.0615, 0.046, 0.007]).max() < 1e-3
    assert loss.forward(scores, np.array([1])) == pytest.approx(-math.log(p[0, 1]))
    assert_close(loss.backward(), p - [[0, 1, 0, 0, 0, 0]])
    (through_softmax,) = node.backward(np.array([[0, -1 / p[0, 1], 0, 0, 0, 0]]))  # of -ln p
    assert_close(through_softmax, loss.backward())


def test_example_18_kinks():
    node = ref.ReLU()
    node.forward(np.array([-1.0, 0.0, 1.0]))
    assert node.backward(np.ones(3))[0].tolist() == [0, 0, 1]
    pool = ref.MaxPool(3)
    pool.forward(np.array([1.0, 7.0, 7.0]).reshape(1, 3, 1))
    assert pool.backward(np.ones((1, 1, 1)))[0].ravel().tolist() == [0, 1, 0]


def test_example_19_weight_scaling_is_the_mean_over_all_masks():
    x, layer, keep = draw(1, 5), one_by_one(1, 5, 2), 0.7
    mean = np.zeros((1, 2))
    for bits in itertools.product((0.0, 1.0), repeat=5):
        chance = keep ** sum(bits) * (1 - keep) ** (5 - sum(bits))
        mean += chance * layer.forward(ref.Dropout(np.array(bits), 1 - keep).forward(x))
    assert_close(mean, layer.forward(x))  # kept activations are scaled by 1 / p in training
    plain = sum(
        keep ** sum(bits) * (1 - keep) ** (5 - sum(bits)) * layer.forward(x * np.array(bits))
        for bits in itertools.product((0.0, 1.0), repeat=5)
    )
    scaled = ref.Dense(kernel=layer.params["kernel"] * keep, bias=layer.params["bias"])
    assert_close(plain, scaled.forward(x))  # or the weights by p in use


def test_example_20_a_support_vector_machine_of_gates():
    x, w, b, label = draw(1, 4), normal(6, 4, 3), draw(3), 1
    tape = ref.Tape()
    weights, offset = tape.value(w), tape.value(b)
    scores = x @ weights + offset
    total = tape.value(np.zeros((1, 1)))
    pick = np.eye(3)
    for j in (0, 2):
        margin = scores @ (pick[:, [j]] - pick[:, [label]]) + 1.0
        total = total + ref.apply(ref.Max(), margin, tape.value(np.zeros((1, 1))))
    ref.backward(total, np.ones((1, 1)))
    layer, loss = ref.Dense(kernel=w, bias=b), ref.Hinge()
    value = loss.forward(layer.forward(x), np.array([label]))
    layer.backward(loss.backward())
    assert total.array.item() == pytest.approx(value, rel=1e-12)
    assert_close(weights.gradient, layer.gradients["kernel"])
    assert_close(offset.gradient, layer.gradients["bias"])
    kernel = layer.params["kernel"]
    checked = differences(lambda: loss.forward(layer.forward(x), np.array([label])), kernel)
    assert_close(weights.gradient, checked, "the subgradient", 1e-7)
