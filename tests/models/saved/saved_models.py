"""The SavedModels: three signatures as TensorFlow's users export them, with small fixed weights."""

import numpy as np
import tensorflow as tf


class Photo(tf.Module):
    """JPEG files of any size -> name of the strongest colour, mean of each colour from 0 to 1, and height and width."""

    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="image")])
    def serve(self, image):
        def one(file):
            pixels = tf.io.decode_jpeg(file, channels=3, dct_method="INTEGER_ACCURATE")
            return tf.reduce_mean(tf.cast(pixels, tf.float32), [0, 1]) / 255.0, tf.shape(pixels)[:2]

        of_one = (tf.TensorSpec([3], tf.float32), tf.TensorSpec([2], tf.int32))
        mean, size = tf.map_fn(one, image, fn_output_signature=of_one)
        return {"colour": tf.gather(["red", "green", "blue"], tf.argmax(mean, 1)), "mean": mean, "size": size}


class Tile(tf.Module):
    """Images of 32 x 32 pixels -> a score for each of five classes."""

    def __init__(self):
        random = np.random.default_rng(1)
        self.filters = tf.Variable(random.normal(0, 0.3, (5, 5, 3, 8)).astype(np.float32))
        self.weights = tf.Variable(random.normal(0, 0.5, (8, 5)).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 32, 32, 3], tf.uint8, name="pixels")])
    def serve(self, pixels):
        features = tf.nn.relu(tf.nn.conv2d(tf.cast(pixels, tf.float32) / 255.0, self.filters, 2, "SAME"))
        return {"scores": tf.nn.softmax(tf.reduce_mean(features, [1, 2]) @ self.weights)}


class Tokens(tf.Module):
    """Ids of any number -> the weight of each id, and a vector for all of them."""

    def __init__(self):
        random = np.random.default_rng(2)
        self.table = tf.Variable(random.normal(size=(1000, 6)).astype(np.float32))
        self.query = tf.Variable(random.normal(size=6).astype(np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.int32, name="ids")])
    def serve(self, ids):
        states = tf.gather(self.table, ids % 1000)
        weights = tf.nn.softmax(tf.linalg.matvec(states, self.query))
        return {"attention": weights, "pooled": tf.reduce_sum(states * weights[:, :, None], 1)}


MODELS = {"photo": Photo, "tile": Tile, "tokens": Tokens}


def jpeg(height, width, colour, seed):
    """A noisy image of this colour."""
    noise = np.random.default_rng(seed).integers(-20, 20, (height, width, 1))
    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
    return tf.io.encode_jpeg(pixels, quality=80).numpy()


def cases(name):
    """Inputs of several sizes."""
    random = np.random.default_rng(3)
    if name == "photo":
        red, green, blue = (190, 40, 60), (30, 170, 90), (20, 60, 200)
        files = [jpeg(16, 24, red, 4), jpeg(40, 8, green, 5), jpeg(24, 24, blue, 6)]
        return [{"image": np.array(some, dtype=object)} for some in (files[:1], files[1:], files[::-1])]
    if name == "tile":
        return [{"pixels": random.integers(0, 256, (rows, 32, 32, 3)).astype(np.uint8)} for rows in (1, 2)]
    sizes = [(1, 5), (2, 5), (3, 2), (1, 40), (2, 1)]
    return [{"ids": random.integers(0, 50000, size).astype(np.int32)} for size in sizes]
