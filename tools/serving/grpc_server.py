"""Serve gRPC as TensorFlow Serving does: PredictionService and ModelService."""

import contextlib
import hmac

from tools.serving import protocol
from tools.serving.dispatcher import Dispatcher
from tools.serving.protocol import INPUT, OUTPUTS, SIGNATURE, VERSION, Reason, Refused

import grpc
import numpy as np
from google.protobuf import json_format
from tensorflow.core.framework import types_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MOST_STREAMS = 100  # requests at a time of one connection, and calls beyond the limit that still get our own refusal
NO_TOKEN = "this server requires a token: authorization: Bearer TOKEN"
OVERHEAD = 2**16  # bytes of a message besides its pictures


def make_server(dispatcher: Dispatcher, model: str, token: str | None, is_ready) -> grpc.aio.Server:
    """Return the server, without a port. Arguments as those of `rest_server.make_application`."""
    options = {
        "grpc.max_receive_message_length": dispatcher.limits.request_bytes + OVERHEAD,
        "grpc.max_concurrent_streams": MOST_STREAMS,
        "grpc.so_reuseport": 0,  # or a second server could listen at the same port and take half of the requests
    }
    server = grpc.aio.server(
        interceptors=[_TokenCheck(token)] if token else [],
        options=list(options.items()),
        maximum_concurrent_rpcs=dispatcher.limits.requests + MOST_STREAMS,
    )
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(dispatcher, model), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(dispatcher, model, is_ready), server)
    return server


class _TokenCheck(grpc.aio.ServerInterceptor):
    """Refuse a call without the token."""

    def __init__(self, token):
        self._expected = f"Bearer {token}".encode()

        async def refuse(_, context):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, NO_TOKEN)

        self._refusal = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation, call):
        given = dict(call.invocation_metadata).get("authorization", "")
        if hmac.compare_digest(str(given).encode(), self._expected):
            return await continuation(call)
        return self._refusal


@contextlib.asynccontextmanager
async def _refusals_as_status(context):
    """Turn Refused into a status of the call."""
    try:
        yield
    except Refused as refused:
        _, code = refused.reason.value
        await context.abort(grpc.StatusCode[code], str(refused))


def _check(model, spec):
    protocol.check_model(model, spec.name, spec.version.value if spec.HasField("version") else None)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Answer Predict and GetModelMetadata. The other calls of the service are not implemented."""

    def __init__(self, dispatcher, model):
        self._dispatcher, self._model = dispatcher, model

    async def Predict(self, request, context):
        async with _refusals_as_status(context):
            with self._dispatcher.admit("grpc"):
                _check(self._model, request.model_spec)
                protocol.check_signature(request.model_spec.signature_name)
                names = _wanted(request.output_filter)
                answers = await self._dispatcher.in_time(self._dispatcher.detect(_files(request)))
        return _response(self._model, protocol.as_arrays(answers), names)

    async def GetModelMetadata(self, request, context):
        async with _refusals_as_status(context):
            _check(self._model, request.model_spec)
            if list(request.metadata_field) != ["signature_def"]:
                raise Refused(Reason.INVALID, 'metadata_field must be "signature_def"')
        signatures = json_format.ParseDict(protocol.signature_def(), get_model_metadata_pb2.SignatureDefMap())
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name, response.model_spec.version.value = self._model, VERSION
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Answer GetModelStatus. The other call of the service is not implemented."""

    def __init__(self, dispatcher, model, is_ready):
        self._dispatcher, self._model, self._is_ready = dispatcher, model, is_ready

    async def GetModelStatus(self, request, context):
        async with _refusals_as_status(context):
            _check(self._model, request.model_spec)
        is_ready = await self._is_ready() and not self._dispatcher.is_closing
        return json_format.ParseDict(protocol.status(is_ready), get_model_status_pb2.GetModelStatusResponse())


def _files(request):
    if set(request.inputs) != {INPUT}:
        raise Refused(Reason.INVALID, f"the input must be {INPUT}, not {', '.join(sorted(request.inputs)) or 'empty'}")
    tensor = request.inputs[INPUT]
    shape = [dimension.size for dimension in tensor.tensor_shape.dim]
    if tensor.dtype != types_pb2.DT_STRING or shape != [len(tensor.string_val)]:
        raise Refused(Reason.INVALID, f"{INPUT} must be a list of strings, one for each picture, of shape (N,)")
    return list(tensor.string_val)


def _wanted(output_filter):
    if unknown := set(output_filter) - set(OUTPUTS):
        raise Refused(Reason.INVALID, f"output {', '.join(sorted(unknown))} is not one of {', '.join(OUTPUTS)}")
    return set(output_filter) or set(OUTPUTS)


def _response(model, arrays, names):
    response = predict_pb2.PredictResponse()
    spec = response.model_spec
    spec.name, spec.version.value, spec.signature_name = model, VERSION, SIGNATURE
    for name in names:
        array, tensor = arrays[name], response.outputs[name]
        tensor.dtype = types_pb2.DT_FLOAT if array.dtype == np.float32 else types_pb2.DT_INT32
        for size in array.shape:
            tensor.tensor_shape.dim.add().size = size
        tensor.tensor_content = array.tobytes()
    return response
