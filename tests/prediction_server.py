"""A stand-in for TensorFlow Serving, by its own official stubs: one SavedModel over gRPC and REST on loopback.

python tests/prediction_server.py FOLDER {right|busy|slow|garbage}    prints the two ports, then serves until killed

It answers what `detect_bytes` answers; busy: each request is refused twice before; slow: after five seconds; garbage:
something else.
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

seen = collections.Counter()  # requests by what they ask


def refuses(behaviour, files):
    """Whether this request is to be refused; waits where it is to be slow."""
    if behaviour == "slow":
        time.sleep(5)
    seen[tuple(files)] += 1
    return behaviour == "busy" and seen[tuple(files)] <= 2


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, function, behaviour):
        self.function, self.behaviour = function, behaviour

    def Predict(self, request, context):
        if request.model_spec.name != "yolo" or request.model_spec.signature_name != "detect_bytes":
            context.abort(grpc.StatusCode.NOT_FOUND, f"Servable not found for request: {request.model_spec.name}")
        files = tf.make_ndarray(request.inputs["image_bytes"]).tolist()
        if refuses(self.behaviour, files):
            context.abort(grpc.StatusCode.UNAVAILABLE, "busy")
        response = predict_pb2.PredictResponse()
        for name, x in self.function(image_bytes=tf.constant(files)).items():
            response.outputs[name].CopyFrom(tf.make_tensor_proto(x[:0] if self.behaviour == "garbage" else x))
        return response


class Rest(http.server.BaseHTTPRequestHandler):
    function = behaviour = None

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/models/yolo:predict" and body["signature_name"] == "detect_bytes"
        files = [base64.b64decode(x["image_bytes"]["b64"]) for x in body["instances"]]
        status, answer = 200, "<html>"
        if refuses(self.behaviour, files):
            status = 503
        elif self.behaviour != "garbage":
            found = {name: x.numpy().tolist() for name, x in self.function(image_bytes=tf.constant(files)).items()}
            rows = [{name: x[i] for name, x in found.items()} for i in range(len(files))]
            answer = json.dumps({"predictions": rows})
        self.send_response(status)
        self.end_headers()
        self.wfile.write(answer.encode())

    def log_message(self, *_):
        pass


def main():
    folder, behaviour = sys.argv[1:]
    loaded = tf.saved_model.load(folder)
    function = loaded.signatures["detect_bytes"]
    server = grpc.server(ThreadPoolExecutor(8))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(function, behaviour), server)
    port = server.add_insecure_port("localhost:0")
    server.start()
    Rest.function, Rest.behaviour = staticmethod(function), behaviour
    rest = http.server.ThreadingHTTPServer(("localhost", 0), Rest)
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    print(port, rest.server_port, flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
