"""Exports of scikit-learn, LightGBM and XGBoost, as their users make them."""

import warnings

import numpy as np
from onnxmltools import convert_lightgbm, convert_xgboost
from onnxmltools.convert.common.data_types import FloatTensorType as ToolsFloat
from skl2onnx import to_onnx
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

OPSET = {"": 17, "ai.onnx.ml": 3}
CLASSES = np.array(["blue", "green", "red"])


def table(rows=300, columns=6, seed=1):
    random = np.random.default_rng(seed)
    features = random.normal(size=(rows, columns)).astype(np.float32)
    return features, (features[:, 0] + features[:, 1] ** 2 > 0.5).astype(int) + (features[:, 2] > 1)


def forest(zipmap):
    features, classes = table()
    forest = RandomForestClassifier(n_estimators=40, max_depth=8, random_state=1).fit(features, CLASSES[classes])
    options = {id(forest): {"zipmap": zipmap}}
    model = to_onnx(forest, initial_types=[("features", FloatTensorType([None, 6]))], options=options, target_opset=OPSET)
    return model, {"features": features}


def lightgbm(zipmap):
    from lightgbm import LGBMClassifier

    features, classes = table()
    model = LGBMClassifier(n_estimators=30, verbose=-1, random_state=1).fit(features, classes)
    types = [("features", ToolsFloat([None, 6]))]
    return convert_lightgbm(model, initial_types=types, zipmap=zipmap, target_opset=15), {"features": features}


def xgboost():
    from xgboost import XGBClassifier

    features, classes = table()
    model = XGBClassifier(n_estimators=30, max_depth=5, random_state=1).fit(features, classes)
    types = [("features", ToolsFloat([None, 6]))]
    return convert_xgboost(model, initial_types=types, target_opset=15), {"features": features}


def text():
    vocabulary = "the parcel arrived late broken again thank you very fast friendly refund please never good".split()
    random = np.random.default_rng(2)
    texts = [" ".join(random.choice(vocabulary, 8)) for _ in range(200)]
    labels = ["complaint" if "broken" in text or "late" in text else "praise" for text in texts]
    words = TfidfVectorizer()
    model = make_pipeline(words, LogisticRegression()).fit(texts, labels)
    # By default the export asks for the locale en_US.UTF-8, which small systems lack.
    options = {id(model): {"zipmap": False}, id(words): {"locale": "C"}}
    exported = to_onnx(model, initial_types=[("text", StringTensorType([None, 1]))], options=options, target_opset=OPSET)
    return exported, {"text": np.array(texts, dtype=object)[:, None]}


def mixed():
    random = np.random.default_rng(3)
    rows = 200
    data = np.empty((rows, 3), dtype=object)
    data[:, 0] = random.normal(40, 12, rows).astype(np.float32)
    data[:, 1] = random.choice(["Berlin", "Kyōto", "Paris"], rows)
    data[:, 2] = random.integers(0, 5, rows)
    classes = (data[:, 0].astype(float) > 40).astype(int) * 2 + (data[:, 1] == "Paris")
    encoders = ColumnTransformer([("age", StandardScaler(), [0]), ("city", OneHotEncoder(), [1]), ("visits", OneHotEncoder(), [2])])
    model = make_pipeline(encoders, LogisticRegression(max_iter=500)).fit(data, classes)
    types = [("age", FloatTensorType([None, 1])), ("city", StringTensorType([None, 1])), ("visits", Int64TensorType([None, 1]))]
    options = {id(model): {"zipmap": False}}
    exported = to_onnx(model, initial_types=types, options=options, target_opset=OPSET)
    inputs = {"age": data[:, :1].astype(np.float32), "city": data[:, 1:2], "visits": data[:, 2:].astype(np.int64)}
    return exported, inputs


def all_exports():
    warnings.simplefilter("ignore")
    return {
        "random-forest": forest(zipmap=False),
        "random-forest-zipmap": forest(zipmap=True),
        "lightgbm": lightgbm(zipmap=False),
        "lightgbm-zipmap": lightgbm(zipmap=True),
        "xgboost": xgboost(),
        "tf-idf": text(),
        "columns": mixed(),
    }
