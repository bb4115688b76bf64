"""onnxruntime: inference of the file that `fcnn.interop.to_onnx` writes, with its own optimisations of the graph."""

import os

import jax
import numpy as np
import onnxruntime

import fcnn

from .fcnn_ import NETWORKS

PACKAGES = ("onnxruntime", "onnx")


def device():
    return {"platform": "cpu", "device": "cpu", "threads": os.cpu_count()}


def wait(value):
    return value


def device_peak_mb():
    return None


class Published:
    """Inference alone."""

    step = None

    def __init__(self, network, dtype, variant):
        net = NETWORKS[network.kind](network.classes)
        params = jax.tree.map_with_path(
            lambda path, leaf: network.kernel(leaf.shape) if path[-1].key == "kernel" else np.asarray(leaf),
            net.init(jax.random.key(0), network.shape),
        )
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(params))
        written = fcnn.interop.to_onnx(net, params, net.init_state(network.shape), network.shape)
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.intra_op_num_threads = os.cpu_count()
        self.session = onnxruntime.InferenceSession(
            written.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.x = np.moveaxis(network.data()[0], -1, 1).copy()

    def inferences(self):
        name = self.session.get_inputs()[0].name
        return {"inference": lambda: self.session.run(None, {name: self.x})}
