"""The layers of our four networks as Darknet's cfg has them: compared with a cfg, and written as one.

They are read off the Keras models of `Create_Yolo`, the one place that says what the networks are.
"""

import functools
from typing import Any, NamedTuple

from yolov3.networks import NETWORKS, Heads

ANCHORS_PER_CELL = 3

BETA_NMS = 0.6  # of nms_kind=diounms: with it, it is what greedynms does whatever its beta_nms


class Layer(NamedTuple):
    """What decides a layer's answer, with Darknet's defaults filled in and layers numbered from the first."""

    name: str
    options: dict


def read_layer(section) -> Layer:
    """Return the layer that a section is; of a section that no network of ours has, the name alone."""
    whole, word = section.whole, section.word

    def numbers(option):
        layers = [x if x >= 0 else section.number + x for x in section.wholes(option)]
        if not layers or not all(0 <= x < section.number for x in layers):
            raise section.error(f"{option}={word(option, '')} is not a layer before this one", option)
        return tuple(layers)

    options: dict[str, Any] = {}
    if section.name == "convolutional":
        size, stride = whole("size", 1), whole("stride", 1)
        options = {
            "batch_normalize": whole("batch_normalize", 0),
            "filters": whole("filters", 1),
            "size": size,
            "stride": stride,
            "stride_x": whole("stride_x", stride),
            "stride_y": whole("stride_y", stride),
            "padding": size // 2 if whole("pad", 0) else whole("padding", 0),
            "activation": word("activation", "logistic"),
            "groups": whole("groups", 1),
            "dilation": whole("dilation", 1),
            **{name: whole(name, 0) for name in ("xnor", "binary", "bin_output", "antialiasing", "deform")},
            "share_index": word("share_index", "none"),
        }
    elif section.name == "maxpool":
        stride = whole("stride", 1)
        size = whole("size", stride)
        options = {"size": size, "stride": stride, "padding": whole("padding", size - 1)}
        options |= {name: whole(name, 0) for name in ("maxpool_depth", "antialiasing")}
    elif section.name == "route":
        options = {"layers": numbers("layers"), "groups": whole("groups", 1), "group_id": whole("group_id", 0)}
    elif section.name == "shortcut":
        options = {"from": numbers("from"), "activation": word("activation", "linear")}
        options["weights_type"] = word("weights_type", "none")
    elif section.name == "upsample":
        options = {"stride": whole("stride", 2), "scale": section.real("scale", 1.0)}
    elif section.name == "yolo":
        options = {"new_coords": whole("new_coords", 0)}
    return Layer(section.name, options)


def describe(model) -> list[Layer]:
    """Return the layers of a Keras model of `Create_Yolo`, in the order of Darknet's own cfg of that network."""
    from yolov3.darknet import convolutions

    import keras  # here, since conversions under TensorFlow 2.10 do without

    convs = convolutions(model)
    kinds = keras.layers
    heads = keras.Model(model.inputs, [conv.output for conv, norm in convs if norm is None])
    pending = [x for x in heads.operations if not isinstance(x, (kinds.InputLayer, kinds.Conv2D))]
    read = {id(x) for operation in heads.operations for x in _list(operation.input)}
    layers, place = [], {id(model.inputs[0]): -1}  # the layer that makes a tensor

    def add(name, output=None, **options):
        layers.append(Layer(name, options))
        place[id(output)] = len(layers) - 1

    def go_to(layer):
        if layer != len(layers) - 1:
            add("route", layers=(layer,), groups=1, group_id=0)

    def add_all_that_is_ready():
        while ready := [x for x in pending if all(id(tensor) in place for tensor in _list(x.input))]:
            operation = ready[-1]  # YOLOv4 pools with the smallest window first
            pending.remove(operation)
            inputs = [place[id(tensor)] for tensor in _list(operation.input)]
            output = operation.output
            if isinstance(operation, kinds.Concatenate):
                add("route", output, layers=tuple(inputs), groups=1, group_id=0)
            elif isinstance(operation, kinds.Add):
                add("shortcut", output, **{"from": (min(inputs),), "activation": "linear", "weights_type": "none"})
            elif isinstance(operation, kinds.MaxPooling2D):
                go_to(*inputs)
                size, stride = operation.pool_size[0], operation.strides[0]
                add("maxpool", output, size=size, stride=stride, padding=size - 1, maxpool_depth=0, antialiasing=0)
            elif isinstance(operation, kinds.UpSampling2D):
                go_to(*inputs)
                add("upsample", output, stride=operation.size[0], scale=1.0)
            elif isinstance(output, (list, tuple)):  # halves of the channels
                for i, part in enumerate(output):
                    if id(part) in read:
                        add("route", part, layers=tuple(inputs), groups=len(output), group_id=i)
            else:  # padding, batch normalisation and activation belong to their convolution
                (place[id(output)],) = inputs
                if isinstance(operation, (kinds.Activation, kinds.LeakyReLU)):
                    leaky = isinstance(operation, kinds.LeakyReLU)
                    layers[-1].options["activation"] = "leaky" if leaky else operation.activation.__name__

    add_all_that_is_ready()  # the padding of the picture, if the first convolution has a stride
    for conv, norm in convs:
        go_to(place[id(conv.input)])
        size, stride = conv.kernel_size[0], conv.strides[0]
        options = {"batch_normalize": int(norm is not None), "filters": conv.filters, "size": size, "stride": stride}
        options |= {"stride_x": stride, "stride_y": stride, "padding": size // 2, "activation": "linear", "groups": 1}
        options |= {"dilation": 1, "xnor": 0, "binary": 0, "bin_output": 0, "antialiasing": 0, "deform": 0}
        add("convolutional", conv.output, **options, share_index="none")
        if norm is None:
            add("yolo", new_coords=0)
        add_all_that_is_ready()
    return layers


def _list(x):
    return x if isinstance(x, (list, tuple)) else [x]


# --- Comparing ---------------------------------------------------------------------------------------------------


@functools.cache
def layers_of(name):
    from yolov3.yolov4 import Create_Yolo

    return describe(Create_Yolo(32, NETWORKS[name].type, NETWORKS[name].tiny, 1))


class Difference(NamedTuple):
    number: int  # of the layer
    option: str | None
    text: str


def first_difference(sections, name: str) -> Difference | None:
    """Return where the layers of a cfg first differ from those of one of our networks; None: nowhere."""
    expected = layers_of(name)
    for number, want in enumerate(expected):
        if number == len(sections):
            return Difference(number, None, f"the cfg ends here, but {name} has {len(expected)} layers")
        layer = read_layer(sections[number])
        if layer.name != want.name:
            return Difference(number, None, f"{name} has [{want.name}] here")
        for option, value in want.options.items():
            if option == "filters" and (head := _head_behind(sections, expected, number)):
                classes = head.whole("classes", 20)
                value, why = ANCHORS_PER_CELL * (5 + classes), f", since {ANCHORS_PER_CELL} * (5 + {classes} classes)"
            else:
                why = ""
            if layer.options[option] != value:
                got, right = (_written(option, x, number) for x in (layer.options[option], value))
                return Difference(number, option, f"{option}={got}, but {name} has {right} here{why}")
    if len(sections) > len(expected):
        return Difference(len(expected), None, f"{name} ends before this layer")
    return None


def _head_behind(sections, expected, number):
    """The [yolo] that a layer is the last convolution of, if it is one."""
    behind = [x.name for x in expected[number + 1 : number + 2]] + [x.name for x in sections[number + 1 : number + 2]]
    return sections[number + 1] if behind == ["yolo", "yolo"] else None


def strides_of(layers):
    """Return the pixels of network input per cell behind each layer."""
    strides = []
    for layer in layers:
        options, stride = layer.options, strides[-1] if strides else 1
        if layer.name == "route":
            stride = strides[options["layers"][0]]
        elif layer.name == "upsample":
            stride //= options["stride"]
        strides.append(stride * options["stride"] if layer.name in ("convolutional", "maxpool") else stride)
    return strides


# --- Writing -------------------------------------------------------------------------------------------------------


def cfg_text(network, heads: Heads, classes: int, input_size: int) -> str:
    """Return the cfg with which Darknet and OpenCV run a Keras model of `Create_Yolo` as it is decoded here."""
    lines = [f"# {network.name}, {classes} classes", "[net]", "batch=1", "subdivisions=1"]
    lines += [f"width={input_size}", f"height={input_size}", "channels=3"]
    layers = describe(network)
    strides = strides_of(layers)
    anchors = ", ".join(f"{float(side):.9g}" for head in heads.anchors for pair in head for side in pair)
    for number, (name, options) in enumerate(layers):
        lines += ["", f"[{name}]"]
        if name == "yolo":
            head = heads.strides.index(strides[number])
            first = sum(len(x) for x in heads.anchors[:head])
            lines.append(f"mask={','.join(str(first + i) for i in range(len(heads.anchors[head])))}")
            lines += [f"anchors={anchors}", f"classes={classes}", f"num={sum(map(len, heads.anchors))}"]
            lines.append(f"scale_x_y={heads.scale_x_y[head]:.9g}")
            lines += ["nms_kind=greedynms", f"beta_nms={BETA_NMS}"] if heads.nms == "diou" else []
            continue
        for option, value in options.items():
            if option == "padding" and name == "convolutional":
                lines.append("pad=1")
            elif option in WRITTEN[name] or (name == "route" and options["groups"] > 1):
                lines.append(f"{option}={_written(option, value, number)}")
    return "\n".join(lines) + "\n"


WRITTEN = {  # options that our networks need; the others are as Darknet has them when they are left out
    "convolutional": ("batch_normalize", "filters", "size", "stride", "activation"),
    "maxpool": ("size", "stride"),
    "route": ("layers",),
    "shortcut": ("from", "activation"),
    "upsample": ("stride",),
}


def _written(option, value, number):
    """An option as a cfg has it: layers are counted back from this one."""
    if option in ("layers", "from"):
        return ",".join(str(layer - number) for layer in value)
    return str(value)
