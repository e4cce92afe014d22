"""The models that the servers of `make test-servers` serve, as functions of numpy arrays."""

import time

import numpy as np

# Softmax regression, as in tests/src/model_server/spec.rs.
WEIGHTS = np.array([[-0.39, 2.03, -4.28, -2.06], [1.04, -0.04, -0.47, -2.28], [-0.65, -1.99, 4.75, 4.34]], np.float32)
BIAS = np.array([14.29, 3.12, -17.41], np.float32)
CLASSES = [b"setosa", b"versicolor", b"virginica"]


def iris(rows):
    """FP32 [n,4] -> FP32 [n,3], BYTES [n]."""
    if (rows[:, 0] > 9).any():
        raise ValueError("a row starts with more than 9")
    scores = rows.astype(np.float32) @ WEIGHTS.T + BIAS
    shares = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    return shares.astype(np.float32), [CLASSES[number] for number in shares.argmax(axis=1)]


def texts(strings):
    """BYTES [n] -> BYTES [n], INT32 [n]."""
    return [string.upper() for string in strings], np.array([len(string) for string in strings], np.int32)


def total(rows):
    """FP32 [n,k] -> FP32 [n]."""
    return rows.sum(axis=1, dtype=np.float32)


def pair(rows):
    """FP32 [n,2] -> FP32 [n]."""
    if rows.shape[1:] != (2,):
        raise ValueError(f"expected pairs, got the shape {list(rows.shape)}")
    return total(rows)


def slow(rows):
    """FP32 [n,1] -> FP32 [n], in 50 ms."""
    time.sleep(0.05)
    return total(rows)

