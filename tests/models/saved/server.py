"""Serve SavedModels with TensorFlow, behind the gRPC services of TensorFlow Serving.

    python server.py DIR PORT
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import tensorflow as tf
from tensorflow.python.saved_model.loader_impl import parse_saved_model
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

SIGNATURE = "serving_default"
VERSION = 1


class Models:
    """All models of a folder, version 1 of each."""

    def __init__(self, folder):
        self.loaded, self.signatures = {}, {}
        for path in sorted(Path(folder).glob("*/1/saved_model.pb")):
            name = path.parent.parent.name
            self.signatures[name] = parse_saved_model(str(path.parent)).meta_graphs[0].signature_def
            self.loaded[name] = tf.saved_model.load(str(path.parent))  # keeps its variables alive

    def check(self, spec, context):
        if spec.name not in self.loaded or spec.version.value not in (0, VERSION):
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {spec.name}")


class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, models):
        self.models = models

    def Predict(self, request, context):
        self.models.check(request.model_spec, context)
        name = request.model_spec.name
        serve = self.models.loaded[name].signatures[request.model_spec.signature_name or SIGNATURE]
        try:
            inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
            outputs = serve(**inputs)
        except (tf.errors.InvalidArgumentError, TypeError, ValueError) as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:1024])
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name = name
        answer.model_spec.version.value = VERSION
        for key in request.output_filter or outputs:
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(outputs[key].numpy()))
        return answer

    def GetModelMetadata(self, request, context):
        self.models.check(request.model_spec, context)
        signatures = get_model_metadata_pb2.SignatureDefMap()
        for key, signature in self.models.signatures[request.model_spec.name].items():
            signatures.signature_def[key].CopyFrom(signature)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name = request.model_spec.name
        answer.model_spec.version.value = VERSION
        answer.metadata["signature_def"].Pack(signatures)
        return answer


class Status(model_service_pb2_grpc.ModelServiceServicer):
    def __init__(self, models):
        self.models = models

    def GetModelStatus(self, request, context):
        self.models.check(request.model_spec, context)
        answer = get_model_status_pb2.GetModelStatusResponse()
        answer.model_version_status.add(version=VERSION, state="AVAILABLE")
        return answer


def main():
    folder, port = sys.argv[1:]
    models = Models(folder)
    server = grpc.server(ThreadPoolExecutor(4))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(models), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(models), server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    print("serving", *models.loaded, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
