"""Train the iris demo model and write it in the two formats that the demo serves.

The data is iris.csv, Fisher's 150 flowers: four lengths in centimetres and a class (0 setosa, 1 versicolor,
2 virginica). A two-layer network is trained with plain numpy on 105 of them and scored on the 45 held out. So few
rows make a rough score: over 40 other splits this training got 91 % to 100 % of them right, 97 % on average.

How to run it (Python 3.11; needed only to remake the model, whose files are committed):

    pip install numpy==2.4.6 tensorflow-cpu==2.21.0 onnx==1.23.2 onnxruntime==1.32.0
    python train.py

What it writes beside itself, both from the same weights:

    model.onnx          for the in-process worker: `input` float32 [N,4] -> `output` float32 [N,3] (probabilities)
    1/saved_model.pb    for TensorFlow Serving, with 1/variables: the same names and shapes, as `serving_default`

At the end it loads both files again and stops with an error unless they agree and are more than 95 % right.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # read when TensorFlow is imported, so set before it
import tensorflow as tf  # noqa: E402

HERE = Path(__file__).resolve().parent
ONNX_FILE = HERE / "model.onnx"
SAVED_MODEL = HERE / "1"
SPLIT_SEED, WEIGHT_SEED = 42, 7
TRAIN_ROWS_PER_CLASS = 35  # 105 rows to train on; the other 15 of each class make the 45 held-out rows
HIDDEN, STEPS, RATE, DECAY = 8, 1000, 0.1, 1e-3
OPSET, IR_VERSION = 13, 8


def split(labels):
    """Return the row numbers to train on and those held out, with every class in the same proportion."""
    rng = np.random.default_rng(SPLIT_SEED)
    shuffled = np.array([rng.permutation(np.flatnonzero(labels == c)) for c in range(3)])
    return shuffled[:, :TRAIN_ROWS_PER_CLASS].ravel(), shuffled[:, TRAIN_ROWS_PER_CLASS:].ravel()


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def train(x, labels):
    """Gradient descent on the cross-entropy; returns float32 weights that take the raw centimetres."""
    mean, std = x.mean(axis=0), x.std(axis=0)
    x, wanted = (x - mean) / std, np.eye(3)[labels]
    rng = np.random.default_rng(WEIGHT_SEED)
    w1, b1 = rng.normal(0, 0.5, (4, HIDDEN)), np.zeros(HIDDEN)
    w2, b2 = rng.normal(0, 0.5, (HIDDEN, 3)), np.zeros(3)
    for _ in range(STEPS):
        hidden = np.maximum(x @ w1 + b1, 0)
        d_out = (softmax(hidden @ w2 + b2) - wanted) / len(x)
        d_hidden = (d_out @ w2.T) * (hidden > 0)
        w2 -= RATE * (hidden.T @ d_out + DECAY * w2)
        b2 -= RATE * d_out.sum(axis=0)
        w1 -= RATE * (x.T @ d_hidden + DECAY * w1)
        b1 -= RATE * d_hidden.sum(axis=0)
    w1 = w1 / std[:, None]  # fold the standardisation into the first layer
    b1 = b1 - mean @ w1
    return {"w1": np.float32(w1), "b1": np.float32(b1), "w2": np.float32(w2), "b2": np.float32(b2)}


def write_onnx(weights):
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["input", "w1", "b1"], ["sum1"]),
         helper.make_node("Relu", ["sum1"], ["hidden"]),
         helper.make_node("Gemm", ["hidden", "w2", "b2"], ["logits"]),
         helper.make_node("Softmax", ["logits"], ["output"], axis=1)],
        "iris",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()])
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    ONNX_FILE.write_bytes(model.SerializeToString())


class Iris(tf.Module):
    def __init__(self, weights):
        super().__init__(name="iris")
        self.weights = {name: tf.Variable(value, name=name, trainable=False) for name, value in weights.items()}

    @tf.function(input_signature=[tf.TensorSpec([None, 4], tf.float32, name="input")])
    def serve(self, x):
        w = self.weights
        hidden = tf.nn.relu(x @ w["w1"] + w["b1"])
        return {"output": tf.nn.softmax(hidden @ w["w2"] + w["b2"])}


def write_saved_model(weights):
    shutil.rmtree(SAVED_MODEL, ignore_errors=True)
    module = Iris(weights)
    tf.saved_model.save(module, str(SAVED_MODEL), signatures={"serving_default": module.serve},
                        options=tf.saved_model.SaveOptions(save_debug_info=False))  # it would hold machine paths
    (SAVED_MODEL / "assets").rmdir()  # empty; rmdir refuses if it ever is not
    (SAVED_MODEL / "fingerprint.pb").unlink()  # holds a random number, so it would differ after every run


def main():
    table = np.loadtxt(HERE / "iris.csv", delimiter=",", skiprows=1)
    x, labels = np.float32(table[:, :4]), table[:, 4].astype(int)
    train_rows, held_out = split(labels)
    weights = train(table[train_rows, :4], labels[train_rows])
    write_onnx(weights)
    write_saved_model(weights)

    from_onnx = InferenceSession(str(ONNX_FILE)).run(["output"], {"input": x})[0]
    serve = tf.saved_model.load(str(SAVED_MODEL)).signatures["serving_default"]
    from_tf = serve(input=tf.constant(x))["output"].numpy()
    gap = float(np.abs(from_onnx - from_tf).max())
    print(f"largest difference between the two files over {len(x)} rows: {gap:.1e}")
    assert gap < 1e-6, "the two files do not hold the same model"
    right = from_onnx.argmax(axis=1) == labels
    for what, hits in [("the held-out rows", right[held_out]), ("all rows, those trained on too", right)]:
        print(f"accuracy on {what}: {hits.mean():.2%} ({hits.sum()} of {len(hits)})")
        assert hits.mean() > 0.95, f"accuracy on {what} is too low"


if __name__ == "__main__":
    main()
