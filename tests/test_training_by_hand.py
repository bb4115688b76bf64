"""Training LeNet-5 on MNIST by fcnn under jit and by the reference's backpropagation: every loss agrees."""

import os
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from reference_oracle import assert_close

import fcnn
from fcnn import reference as ref
from fcnn.initialization import fold

STEPS, BATCH, RATE, MOMENTUM = 50, 16, 0.02, 0.9
FOLDER = os.environ.get("FCNN_DATA", "")
needs_mnist = pytest.mark.skipif(
    not (FOLDER and (Path(FOLDER) / "mnist").is_dir()),
    reason="MNIST is not there: set FCNN_DATA to a folder with mnist/",
)
NET = fcnn.serial(
    fcnn.Conv(6, 5), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),  # (32, 32, 1) to (14, 14, 6)
    fcnn.Conv(16, 5), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),  # to (5, 5, 16)
    fcnn.Conv(120, 5), jax.nn.relu, fcnn.Flatten(),  # to (120,)
    fcnn.Dense(84), jax.nn.relu, fcnn.Dropout(0.5), fcnn.Dense(10),
)  # fmt: skip


@pytest.fixture(scope="module")
def digits():
    """The first digits of MNIST in float64, on the 32 x 32 pixels that the network was made for."""
    x, y = fcnn.data.mnist().train
    count = STEPS * BATCH + 64
    return np.pad(x[:count].astype(np.float64), ((0, 0), (2, 2), (2, 2), (0, 0))), y[:count]


def masks():
    """For each step its key, and which of the 84 units of each example that key keeps, seen from outside."""
    keys = [jax.random.fold_in(jax.random.key(3), step) for step in range(STEPS)]
    ones = np.ones((BATCH, 84))
    drop = jax.jit(lambda key: fcnn.Dropout(0.5).apply_train({}, ones, key=fold(key, "dropout1"))[0])
    return keys, [(np.asarray(drop(key)) != 0).astype(np.float64) for key in keys]


def by_fcnn(params, x, y, keys):
    """The loss at every step, and what was learned."""
    state, optimizer = NET.init_state((32, 32, 1)), optax.sgd(RATE, momentum=MOMENTUM)
    memory, losses = optimizer.init(params), []

    @jax.jit
    def step(params, state, memory, key, x, y):
        def objective(params):
            scores, new = NET.apply_train(params, x, key=key, state=state)
            return optax.losses.softmax_cross_entropy_with_integer_labels(scores, y).mean(), new

        (loss, state), gradient = jax.value_and_grad(objective, has_aux=True)(params)
        with jax.numpy_dtype_promotion("standard"):
            updates, memory = optimizer.update(gradient, memory, params)
        return optax.apply_updates(params, updates), state, memory, loss

    for i, key in enumerate(keys):
        chosen = slice(i * BATCH, (i + 1) * BATCH)
        params, state, memory, loss = step(params, state, memory, key, x[chosen], y[chosen])
        losses.append(float(loss))
    return losses, params, state


class LeNet5:
    """The same network written out in the reference's nodes, with its own running statistics."""

    def __init__(self, params):
        part = {name: {key: np.array(value) for key, value in entry.items()} for name, entry in params.items()}
        self.norms = [ref.BatchNorm(**part[f"batch_norm{n}"]) for n in (1, 2)]
        for norm, maps in zip(self.norms, (6, 16), strict=True):
            norm.mean, norm.variance = np.zeros(maps), np.ones(maps)
        self.dropout = ref.Dropout(None, 0.5)
        self.chain = ref.Chain(
            [
                *(ref.Conv(**part["conv1"]), self.norms[0], ref.ReLU(), ref.MaxPool(2)),
                *(ref.Conv(**part["conv2"]), self.norms[1], ref.ReLU(), ref.MaxPool(2)),
                *(ref.Conv(**part["conv3"]), ref.ReLU(), ref.Flatten()),
                *(ref.Dense(**part["dense1"]), ref.ReLU(), self.dropout, ref.Dense(**part["dense2"])),
            ]
        )

    def train(self, x, y, kept, momentum=MOMENTUM):
        """The loss at every step."""
        loss, update, losses = ref.SoftmaxCrossEntropy(), ref.Momentum(RATE, momentum), []
        for norm in self.norms:
            norm.train = True
        for i, mask in enumerate(kept):
            chosen = slice(i * BATCH, (i + 1) * BATCH)
            self.dropout.mask = mask
            losses.append(loss.forward(self.chain.forward(x[chosen]), y[chosen]))
            self.chain.clear()
            self.chain.backward(loss.backward())
            self.chain.replace(update.step(self.chain.params, self.chain.gradients))
            for norm in self.norms:
                norm.mean, norm.variance = norm.new_mean, norm.new_variance
        return losses

    def scores(self, x):
        """In use: running statistics, nothing dropped."""
        for norm in self.norms:
            norm.train = False
        self.dropout.mask = None
        return self.chain.forward(x)


def worst(losses, truth):
    """The largest relative difference of two runs, and the step where it is."""
    errors = np.abs(np.subtract(losses, truth)) / np.abs(truth)
    return float(errors.max()), int(errors.argmax())


@needs_mnist
def test_lenet_5_trains_the_same_on_mnist_by_fcnn_and_by_hand_for_fifty_steps(digits, x64):
    x, y = digits
    params, (keys, kept) = NET.init(jax.random.key(0), (32, 32, 1)), masks()
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 61_706 + 2 * 6 + 2 * 16
    assert 0.45 < np.mean(kept) < 0.55
    assert len({mask.tobytes() for mask in kept}) == STEPS

    losses, trained, state = by_fcnn(params, x, y, keys)
    by_hand = LeNet5(params)
    error, step = worst(losses, by_hand.train(x, y, kept))
    assert error <= 1e-8, f"step {step}: relative error {error:.1e}"
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:5])

    for norm, entry in zip(by_hand.norms, (state["batch_norm1"], state["batch_norm2"]), strict=True):
        assert_close(entry["mean"], norm.mean, "the running mean", 1e-8)
        assert_close(entry["variance"], norm.variance, "the running variance", 1e-8)
    unseen = x[STEPS * BATCH :]
    scores = jax.jit(NET.apply)(trained, unseen, state=state)
    assert_close(scores, by_hand.scores(unseen), "the scores of digits that were not trained on", 1e-8)

    # the comparison can fail: another momentum in the fourth decimal, or the masks of other steps
    error, _ = worst(losses[:5], LeNet5(params).train(x, y, kept[:5], momentum=0.8999))
    assert error > 1e-6
    error, _ = worst(losses[:5], LeNet5(params).train(x, y, kept[1:6]))
    assert error > 1e-2
