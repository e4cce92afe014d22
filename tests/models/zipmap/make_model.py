"""Write model.onnx, a classifier as scikit-learn's converter exports it by default.

It takes `x`, float32 [N,4], and returns `output_label`, string [N], and `output_probability`, a sequence of maps from the
class to its probability. The classes are those of iris.csv, which it is trained on.

How to run it (needed only to remake the model, which is committed):

    pip install scikit-learn==1.9.1 skl2onnx==1.20.0
    python make_model.py
"""

from pathlib import Path

import numpy as np
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).resolve().parent
CLASSES = np.array(["setosa", "versicolor", "virginica"])


def main():
    table = np.loadtxt(HERE / "../../../compose/models/iris/iris.csv", delimiter=",", skiprows=1)
    classifier = LogisticRegression(max_iter=1000).fit(table[:, :4], CLASSES[table[:, 4].astype(int)])
    model = to_onnx(classifier, initial_types=[("x", FloatTensorType([None, 4]))], target_opset={"": 17, "ai.onnx.ml": 3})
    (HERE / "model.onnx").write_bytes(model.SerializeToString())


if __name__ == "__main__":
    main()
