"""Write the SavedModels, and cases.json with their signatures, inputs, and TensorFlow's answers to these.

    python make_models.py DIR    # DIR/NAME/1/saved_model.pb, DIR/cases.json

recorded.json is such a cases.json. The test server answers from it.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model

from saved_models import MODELS, cases

DATATYPES = {"float32": "FP32", "int32": "INT32", "uint8": "UINT8", "object": "BYTES", "string": "BYTES"}


def element(value):
    """An element of BYTES: a string if it is UTF-8, as in results of Tepal."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def elements(array):
    if array.dtype == object:
        return [element(value) for value in array.ravel()]
    if array.dtype == np.float32:
        return [float(str(value)) for value in array.ravel()]  # as few digits as are exact
    return array.ravel().tolist()


def tensor(name, array):
    """As JSON, in the form of the Open Inference Protocol."""
    datatype = DATATYPES[array.dtype.name]
    return {"name": name, "shape": list(array.shape), "datatype": datatype, "data": elements(array)}


def described(infos):
    """The inputs or outputs of a signature."""
    tensors = []
    for name, info in sorted(infos.items()):
        shape = [axis.size for axis in info.tensor_shape.dim]
        tensors.append({"name": name, "datatype": DATATYPES[tf.as_dtype(info.dtype).name], "shape": shape})
    return tensors


def case_of(serve, inputs):
    given = {name: tf.constant(array) for name, array in inputs.items()}
    answer = serve(**given)
    return {
        "inputs": [tensor(name, array) for name, array in inputs.items()],
        "outputs": [tensor(name, answer[name].numpy()) for name in sorted(answer)],
    }


def main():
    target = Path(sys.argv[1])
    models = {}
    for name, model in MODELS.items():
        model, folder = model(), str(target / name / "1")
        tf.saved_model.save(model, folder, signatures=model.serve)
        signature = parse_saved_model(folder).meta_graphs[0].signature_def["serving_default"]
        serve = tf.saved_model.load(folder).signatures["serving_default"]
        models[name] = {
            "inputs": described(signature.inputs),
            "outputs": described(signature.outputs),
            "cases": [case_of(serve, inputs) for inputs in cases(name)],
        }
    (target / "cases.json").write_text(json.dumps(models))


if __name__ == "__main__":
    main()
