"""A stand-in for TensorFlow Serving, by its own official stubs: one SavedModel over gRPC and REST on loopback.

python tests/prediction_server.py FOLDER    prints the two ports, then serves until killed

The model's name says how it behaves. yolo answers what `detect_bytes` answers; busy refuses each request twice before;
slow waits five seconds; garbage answers something else.
"""

import base64
import collections
import http.server
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

MODELS = "yolo", "busy", "slow", "garbage"
seen = collections.Counter()  # requests by the model and pictures they ask for


def refuses(model, files):
    """Whether this request is to be refused; waits where it is to be slow."""
    if model == "slow":
        time.sleep(5)
    seen[(model, *files)] += 1
    return model == "busy" and seen[(model, *files)] <= 2


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, function):
        self.function = function

    def Predict(self, request, context):
        model = request.model_spec.name
        if model not in MODELS or request.model_spec.signature_name != "detect_bytes":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {model}")
        files = tf.make_ndarray(request.inputs["image_bytes"]).tolist()
        if refuses(model, files):
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        response = predict_pb2.PredictResponse()
        for name, x in self.function(image_bytes=tf.constant(files)).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(x[:0] if model == "garbage" else x))
        return response


class Rest(http.server.BaseHTTPRequestHandler):
    function = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = self.path.removeprefix("/v1/models/").removesuffix(":predict")
        assert model in MODELS and body["signature_name"] == "detect_bytes"
        files = [base64.b64decode(x["image_bytes"]["b64"]) for x in body["instances"]]
        status, answer = 200, "<html>"
        if refuses(model, files):
            status = 503
        elif model != "garbage":
            found = {name: x.numpy().tolist() for name, x in self.function(image_bytes=tf.constant(files)).items()}
            rows = [{name: x[i] for name, x in found.items()} for i in range(len(files))]
            answer = json.dumps({"predictions": rows})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


def main():
    loaded = tf.saved_model.load(sys.argv[1])
    function = loaded.signatures["detect_bytes"]
    server = grpc.server(ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(function), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    Rest.function = staticmethod(function)
    rest = http.server.ThreadingHTTPServer(("localhost", 0), Rest)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    print(port, rest.server_port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
