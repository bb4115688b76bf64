"""Computes a traced network node by node: if its numbers, paths and settings are right, so is the result."""

import jax
import jax.numpy as jnp

from fcnn.context import Context
from fcnn.jaxprs import parts_of_scan


def interpret(trace, params, state, *inputs, key=None):
    """The outputs and the new state by path, from the nodes alone; nothing of the network itself is called."""
    values = dict(trace.constants)
    values.update({number: lookup(params, path) for number, path in trace.params})
    values.update({number: lookup(state, path) for number, path in trace.state})
    values.update(zip(trace.inputs, inputs, strict=True))
    run(trace, values)
    return [values[n] for n in trace.outputs], {path: values[n] for path, n in trace.new_state}


def run(trace, values):
    for node in trace.nodes:
        if node.layer is not None:
            layer(node, values)
        elif node.primitive == "scan":
            loop(node, values)
        else:
            equation = node.equation
            found = equation.primitive.bind(*[values[n] for n in node.inputs], **equation.params)
            found = found if equation.primitive.multiple_results else [found]
            values.update(zip(node.outputs, found, strict=True))


def layer(node, values):
    params, state = nested(node.params, values), nested(node.state, values)
    inputs = tuple(values[n] for n in node.inputs)
    y, new_state = node.layer.run(Context(train=bool(node.new_state)), params, state, inputs)
    values.update(zip(node.outputs, jax.tree.leaves(y), strict=True))
    values.update({n: lookup(new_state, path) for path, n in node.new_state})


def loop(node, values):
    """Turn by turn, with the equation's own arguments: the body's trace has a number for each."""
    (body,), settings = node.inside, node.equation.params
    fixed, carried = parts_of_scan(settings)
    given = [values.get(n) for n in node.arguments]  # None: what the body does not look at
    kept, carry, sliced = given[:fixed], given[fixed : fixed + carried], given[fixed + carried :]
    stacked = []
    for turn in range(settings["length"]):
        inner = dict(body.constants)
        inner.update(
            zip(range(len(given)), [*kept, *carry, *(None if a is None else a[turn] for a in sliced)], strict=True)
        )
        run(body, inner)
        results = [inner[n] for n in (*body.outputs, *body.rest)]
        carry = results[:carried]
        stacked.append(results[carried:])
    values.update(zip(node.outputs, [*carry, *(jnp.stack(each) for each in zip(*stacked, strict=True))], strict=True))


def nested(named, values):
    tree = {}
    for path, number in named:
        *steps, last = path.split("/")
        place = tree
        for step in steps:
            place = place.setdefault(step, {})
        place[last] = values[number]
    return tree


def lookup(tree, path):
    for step in path.split("/"):
        tree = tree[step]
    return tree
