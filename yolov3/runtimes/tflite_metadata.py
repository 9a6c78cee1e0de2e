"""Add metadata to a TFLite file, as Android's and MediaPipe's readers expect it: what it is, and the class names.

The names lie in a zip file behind the model, which readers of the model pass over: `unzip -p model.tflite labels.txt`.
What refers to them lies in the model, in a format of its own (metadata_schema.fbs of TensorFlow Lite Support).
"""

import io
import json
import zipfile

from yolov3.checkpoint import ModelSpec
from yolov3.sizes import size_name, written_size

LABELS, ABOUT = "labels.txt", "about.json"
IDENTIFIER, BUFFER = b"M001", b"TFLITE_METADATA"
VALUE_LABELS = 3  # AssociatedFileType.TENSOR_VALUE_LABELS


def with_metadata(content: bytes, spec: ModelSpec, outputs: str) -> bytes:
    """Return the bytes of a TFLite file with metadata. `outputs` says what it answers, in words."""
    from tensorflow.lite.python import schema_py_generated as schema
    from tensorflow.lite.tools import flatbuffer_utils

    description = f"{spec}; images RGB, {size_name(spec.input_size)}, {spec.resize}; {outputs}"
    model = flatbuffer_utils.convert_bytearray_to_object(content)
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = _metadata(spec.name, description)
    entry.name, entry.buffer = BUFFER, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]

    packed = io.BytesIO(bytes(flatbuffer_utils.convert_object_to_bytearray(model)))
    about = {
        "type": spec.name,
        "classes": spec.classes,
        "input_size": written_size(spec.input_size),
        "resize": spec.resize,
        "outputs": outputs,
    }
    with zipfile.ZipFile(packed, "a") as archive:
        for name, text in ((LABELS, "\n".join(spec.classes) + "\n"), (ABOUT, json.dumps(about, indent=2) + "\n")):
            archive.writestr(zipfile.ZipInfo(name), text)  # of a fixed date, so that the same model is the same file
    return packed.getvalue()


def _metadata(name: str, description: str) -> bytes:
    """Return the flatbuffer of a ModelMetadata table that refers to the labels."""
    import flatbuffers

    builder = flatbuffers.Builder(0)

    def table(*fields):  # a number, or the place of what was written before, of each field; None: left out
        builder.StartObject(len(fields))
        for i, value in enumerate(fields):
            if isinstance(value, tuple):
                builder.PrependInt8Slot(i, value[0], 0)
            elif value is not None:
                builder.PrependUOffsetTRelativeSlot(i, value, 0)
        return builder.EndObject()

    def vector(*tables):
        builder.StartVector(4, len(tables), 4)
        for place in reversed(tables):
            builder.PrependUOffsetTRelative(place)
        return builder.EndVector()

    text = {x: builder.CreateString(x) for x in (name, description, LABELS, "class names, one a line", "1")}
    labels = table(text[LABELS], text["class names, one a line"], (VALUE_LABELS,))
    files = vector(labels)
    model = table(text[name], text[description], text["1"], None, None, None, files)
    builder.Finish(model, file_identifier=IDENTIFIER)
    return bytes(builder.Output())
