"""Train the language model, the second demo model, and write model.onnx.

The model names the language of a text: English, French, German, Italian or Spanish. It takes Unicode code points, so it
needs no tokenizer, and texts of any length. The data is sentences.tsv, 24 sentences in each language, written for this
purpose. The network is trained with plain numpy on pieces of 20 sentences of each language and scored on the other 4.

How to run it (Python 3.11; needed only to remake the model, whose file is committed):

    pip install numpy==2.4.6 onnx==1.23.2 onnxruntime==1.32.0
    python train.py

What it writes beside itself:

    model.onnx    `text` int64 [N,length], code points, 0 = nothing -> `probabilities` float32 [N,5], and `evidence`
                  float32 [N,length,5]: how much each character speaks for each language

At the end it loads the file again and stops with an error unless it agrees with numpy, is more than 95 % right on the
held-out sentences and more than 80 % on pieces of 24 characters of them.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import InferenceSession

HERE = Path(__file__).resolve().parent
ONNX_FILE = HERE / "model.onnx"
OPSET, IR_VERSION = 13, 8
SYMBOLS = 256  # code points beyond are folded into these
EMBEDDING, HIDDEN, WINDOW = 8, 32, 5
SHARPNESS = 10.0  # the mean over a text is small where few characters decide, so it is scaled before softmax
HELD_OUT_EACH = 4
STEPS, BATCH, PIECE, RATE, DECAY, SEED = 3000, 64, (16, 60), 3e-3, 1e-4, 7


def read():
    """Return the sentences and the number of the language of each."""
    lines = (HERE / "sentences.tsv").read_text(encoding="utf-8").splitlines()[1:]
    names, texts = zip(*(line.split("\t") for line in lines))
    languages = sorted(set(names))
    return languages, np.array(texts), np.array([languages.index(name) for name in names])


def code_points(texts):
    """Return the texts as one array, with zeros behind the shorter ones."""
    codes = np.zeros((len(texts), max(map(len, texts))), np.int64)
    for row, text in zip(codes, texts):
        row[: len(text)] = [ord(char) for char in text]
    return codes


def pieces(rng, texts, labels):
    """Cut pieces out of random sentences, some of them in capitals or small letters."""
    chosen = rng.integers(len(texts), size=BATCH)
    cut = []
    for text in texts[chosen]:
        length = rng.integers(PIECE[0], PIECE[1])
        start = rng.integers(max(1, len(text) - length + 1))
        piece = text[start : start + length]
        cut.append([piece, piece, piece.lower(), piece.upper()][rng.integers(4)])
    return code_points(cut), labels[chosen]


def windows(x):
    """Return what the convolution sees at each place: [N,length,EMBEDDING] -> [N,length,WINDOW*EMBEDDING]."""
    half = WINDOW // 2
    padded = np.pad(x, ((0, 0), (half, half), (0, 0)))
    return np.concatenate([padded[:, i : i + x.shape[1]] for i in range(WINDOW)], axis=2)


def softmax(z):
    e = np.exp(z - z.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


def forward(w, codes):
    mask = (codes > 0)[:, :, None].astype(w["bias"].dtype)
    seen = windows(w["embedding"][codes % SYMBOLS] * mask)
    hidden = np.maximum(seen @ w["window"] + w["bias"], 0)
    evidence = hidden @ w["output"] * mask
    share = mask / np.maximum(mask.sum(axis=1, keepdims=True), 1)
    return softmax((evidence * share).sum(axis=1) * SHARPNESS), evidence, (mask, seen, hidden, share)



def gradients(w, codes, labels):
    probabilities, _, (mask, seen, hidden, share) = forward(w, codes)
    d_mean = (probabilities - np.eye(probabilities.shape[1])[labels]) * SHARPNESS / len(codes)
    d_evidence = d_mean[:, None, :] * share * mask
    d_hidden = (d_evidence @ w["output"].T) * (hidden > 0)
    d_seen = d_hidden @ w["window"].T
    d_embedded, half, length = np.zeros((*codes.shape, EMBEDDING)), WINDOW // 2, codes.shape[1]
    for i in range(WINDOW):
        shift = i - half  # place p saw place p + shift
        part = d_seen[:, :, i * EMBEDDING : (i + 1) * EMBEDDING]
        d_embedded[:, max(shift, 0) : length + min(shift, 0)] += part[:, max(-shift, 0) : length - max(shift, 0)]
    d_table = np.zeros_like(w["embedding"])
    np.add.at(d_table, codes % SYMBOLS, d_embedded * mask)
    flat = lambda array: array.reshape(-1, array.shape[-1])
    return {"embedding": d_table, "window": flat(seen).T @ flat(d_hidden), "bias": flat(d_hidden).sum(axis=0),
            "output": flat(hidden).T @ flat(d_evidence)}


def train(texts, labels, classes):
    """Adam (Kingma and Ba, 2014) on the cross-entropy; returns float32 weights."""
    rng = np.random.default_rng(SEED)
    w = {"embedding": rng.normal(0, 0.5, (SYMBOLS, EMBEDDING)),
         "window": rng.normal(0, 1 / np.sqrt(WINDOW * EMBEDDING), (WINDOW * EMBEDDING, HIDDEN)),
         "bias": np.zeros(HIDDEN), "output": rng.normal(0, 1 / np.sqrt(HIDDEN), (HIDDEN, classes))}
    first, second = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    for step in range(1, STEPS + 1):
        found = gradients(w, *pieces(rng, texts, labels))
        for name, gradient in found.items():
            gradient += DECAY * w[name]
            first[name] = 0.9 * first[name] + 0.1 * gradient
            second[name] = 0.999 * second[name] + 0.001 * gradient**2
            mean, spread = first[name] / (1 - 0.9**step), second[name] / (1 - 0.999**step)
            w[name] -= RATE * mean / (np.sqrt(spread) + 1e-8)
    return {name: np.float32(value) for name, value in w.items()}


def write_onnx(w, classes):
    node, constants = helper.make_node, {
        "embedding": w["embedding"], "bias": w["bias"],
        # [output channels, input channels, place in the window]
        "window": np.ascontiguousarray(w["window"].reshape(WINDOW, EMBEDDING, HIDDEN).transpose(2, 1, 0)),
        "output": w["output"], "symbols": np.int64(SYMBOLS), "zero": np.int64(0), "one": np.float32(1),
        "sharpness": np.float32(SHARPNESS), "places": np.int64([1]), "channel": np.int64([2])}
    half = WINDOW // 2
    graph = helper.make_graph(
        [node("Mod", ["text", "symbols"], ["folded"]),
         node("Gather", ["embedding", "folded"], ["looked_up"]),
         node("Greater", ["text", "zero"], ["is_text"]),
         node("Cast", ["is_text"], ["weight"], to=TensorProto.FLOAT),
         node("Unsqueeze", ["weight", "channel"], ["mask"]),
         node("Mul", ["looked_up", "mask"], ["embedded"]),
         node("Transpose", ["embedded"], ["channels_first"], perm=[0, 2, 1]),
         node("Conv", ["channels_first", "window", "bias"], ["sums"], kernel_shape=[WINDOW], pads=[half, half]),
         node("Relu", ["sums"], ["hidden"]),
         node("Transpose", ["hidden"], ["channels_last"], perm=[0, 2, 1]),
         node("MatMul", ["channels_last", "output"], ["all_evidence"]),
         node("Mul", ["all_evidence", "mask"], ["evidence"]),
         node("ReduceSum", ["evidence", "places"], ["total"], keepdims=0),
         node("ReduceSum", ["mask", "places"], ["length"], keepdims=0),
         node("Max", ["length", "one"], ["at_least_one"]),
         node("Div", ["total", "at_least_one"], ["mean"]),
         node("Mul", ["mean", "sharpness"], ["logits"]),
         node("Softmax", ["logits"], ["probabilities"], axis=1)],
        "language",
        [helper.make_tensor_value_info("text", TensorProto.INT64, ["N", "length"])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", classes]),
         helper.make_tensor_value_info("evidence", TensorProto.FLOAT, ["N", "length", classes])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()])
    model = helper.make_model(graph, ir_version=IR_VERSION, opset_imports=[helper.make_opsetid("", OPSET)])
    onnx.checker.check_model(model, full_check=True)
    ONNX_FILE.write_bytes(model.SerializeToString())


def main():
    languages, texts, labels = read()
    place = np.array([np.flatnonzero(np.flatnonzero(labels == label) == row)[0] for row, label in enumerate(labels)])
    is_held_out = place % (24 // HELD_OUT_EACH) == 0
    weights = train(texts[~is_held_out], labels[~is_held_out], len(languages))
    write_onnx(weights, len(languages))

    session, codes = InferenceSession(str(ONNX_FILE)), code_points(texts)
    from_onnx = session.run(["probabilities", "evidence"], {"text": codes})
    gap = max(float(np.abs(ours - theirs).max()) for ours, theirs in zip(forward(weights, codes), from_onnx))
    print(f"labels: {languages}\nlargest difference between numpy and the file over {len(texts)} sentences: {gap:.1e}")
    assert gap < 1e-4, "the file does not hold the model"
    pieces_of = [(text[start : start + 24], label) for text, label in zip(texts[is_held_out], labels[is_held_out])
                 for start in range(0, len(text) - 23, 8)]
    for what, least, rows, wanted in [
            ("held-out sentences", 0.95, texts[is_held_out], labels[is_held_out]),
            ("pieces of 24 characters of them", 0.8, *map(np.array, zip(*pieces_of)))]:
        right = session.run(["probabilities"], {"text": code_points(rows)})[0].argmax(axis=1) == wanted
        print(f"accuracy on {what}: {right.mean():.2%} ({right.sum()} of {len(right)})")
        assert right.mean() > least, f"accuracy on {what} is too low"


if __name__ == "__main__":
    main()
