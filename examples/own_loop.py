"""The bare step in a loop of your own, for people who want no ``fit``.

    python examples/own_loop.py

Thirty epochs on scikit-learn's digits, some seconds after the compilation. Everything that training changes is one
NamedTuple: params, state, optimizer_state, key, step. The step is a pure function; the rest is NumPy and a for loop.
"""

import compiled
import jax
import numpy as np
import optax

import fcnn

compiled.keep()
net = fcnn.serial(
    fcnn.Conv(32, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu, fcnn.MaxPool(2),
    fcnn.Flatten(), fcnn.Dropout(0.5), fcnn.Dense(10),
)  # fmt: skip
(x, y), test, *_ = fcnn.data.digits()

optimizer = optax.adam(2e-3)
step = jax.jit(fcnn.training.make_step(net, optimizer), donate_argnums=0)
train = fcnn.training.start(net, optimizer, jax.random.key(0), x.shape[1:])
order = np.random.default_rng(0)
for epoch in range(30):
    for chosen in np.split(order.permutation(len(y))[:1408], 22):
        train, metrics = step(train, (x[chosen], y[chosen]))
    if epoch % 5 == 4:
        print(f"epoch {epoch + 1}: loss {metrics['loss']:.4f} in the last batch")
print(fcnn.evaluate(net, train.params, test, state=train.state))
