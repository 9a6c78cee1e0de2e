"""Write cfgs: of one of our four networks, read off its Keras model, and one that was read with other numbers in it."""

from typing import TYPE_CHECKING, NamedTuple

from yolov3.cfg.sections import Section, lines_of
from yolov3.networks import BETA_NMS, Heads

if TYPE_CHECKING:
    from yolov3.cfg.network import Cfg

    import keras


def rewrite(
    cfg: "Cfg", heads: Heads | None = None, classes: int | None = None, size: tuple[int, int] | None = None
) -> str:
    """Return the text of a cfg with other anchors, number of classes or input size (height, width). All other lines
    stay as they are."""
    lines, added = lines_of(cfg.text), []

    def put(section: Section, option: str, value: str) -> None:
        if option in section.options:
            _, line = section.options[option]
            lines[line - 1] = f"{option}={value}"
        else:
            added.append((section.line, f"{option}={value}"))

    if size not in (None, cfg.size):
        for side, pixels in zip(("height", "width"), size, strict=True):
            put(cfg.net, side, str(pixels))
    anchors = cfg.heads.anchors if heads is None else heads.anchors
    first = 0
    for row, theirs in zip(cfg.head_rows, anchors, strict=True):
        if classes not in (None, cfg.classes):
            put(row.section, "classes", str(classes))
            put(cfg.rows[row.inputs[0]].section, "filters", str(len(theirs) * (5 + classes)))
        if anchors != cfg.heads.anchors:
            put(row.section, "mask", ",".join(str(first + i) for i in range(len(theirs))))
            put(row.section, "anchors", _listed(anchors))
            put(row.section, "num", str(sum(map(len, anchors))))
        first += len(theirs)
    for line, text in sorted(added, reverse=True):
        lines.insert(line, text)
    return "\n".join(lines)


def _listed(anchors):
    return ", ".join(f"{float(side):.9g}" for head in anchors for pair in head for side in pair)


# --- Our four networks -----------------------------------------------------------------------------------------------


class Layer(NamedTuple):
    """A layer and its options, as far as they are not Darknet's defaults; layers are numbered from the first."""

    name: str
    options: dict


def describe(model: "keras.Model") -> list[Layer]:
    """Return the layers of a Keras model of `Create_Yolo`, one of the four, in the order of Darknet's own cfg of that
    network."""
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
            add("route", layers=(layer,))

    def add_all_that_is_ready():
        while ready := [x for x in pending if all(id(tensor) in place for tensor in _list(x.input))]:
            operation = ready[-1]  # YOLOv4 pools with the smallest window first
            pending.remove(operation)
            inputs = [place[id(tensor)] for tensor in _list(operation.input)]
            output = operation.output
            if isinstance(operation, kinds.Concatenate):
                add("route", output, layers=tuple(inputs))
            elif isinstance(operation, kinds.Add):
                add("shortcut", output, **{"from": (min(inputs),), "activation": "linear"})
            elif isinstance(operation, kinds.MaxPooling2D):
                go_to(*inputs)
                add("maxpool", output, size=operation.pool_size[0], stride=operation.strides[0])
            elif isinstance(operation, kinds.UpSampling2D):
                go_to(*inputs)
                add("upsample", output, stride=operation.size[0])
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
        options = {"filters": conv.filters, "size": conv.kernel_size[0], "stride": conv.strides[0]}
        add("convolutional", conv.output, batch_normalize=int(norm is not None), **options, pad=1, activation="linear")
        if norm is None:
            add("yolo")
        add_all_that_is_ready()
    return layers


def _list(x):
    return x if isinstance(x, (list, tuple)) else [x]


def _strides_of(layers):
    """The pixels of network input per cell behind each layer."""
    strides = []
    for name, options in layers:
        stride = strides[-1] if strides else 1
        if name == "route":
            stride = strides[options["layers"][0]]
        elif name == "upsample":
            stride //= options["stride"]
        strides.append(stride * options["stride"] if name in ("convolutional", "maxpool") else stride)
    return strides


def cfg_text(model: "keras.Model", heads: Heads, classes: int, input_size: int) -> str:
    """Return the cfg with which Darknet and OpenCV run a Keras model of `Create_Yolo`, one of the four, as it is
    decoded here."""
    lines = [f"# {model.name}, {classes} classes", "[net]", "batch=1", "subdivisions=1"]
    lines += [f"width={input_size}", f"height={input_size}", "channels=3"]
    layers = describe(model)
    strides = _strides_of(layers)
    for number, (name, options) in enumerate(layers):
        lines += ["", f"[{name}]"]
        if name == "yolo":
            head = heads.strides.index(strides[number])
            first = sum(len(x) for x in heads.anchors[:head])
            lines.append(f"mask={','.join(str(first + i) for i in range(len(heads.anchors[head])))}")
            lines += [f"anchors={_listed(heads.anchors)}", f"classes={classes}", f"num={sum(map(len, heads.anchors))}"]
            lines.append(f"scale_x_y={heads.scale_x_y[head]:.9g}")
            kind = "greedynms" if heads.beta_nms == BETA_NMS else "diounms"
            lines += [f"nms_kind={kind}", f"beta_nms={heads.beta_nms:.9g}"] if heads.nms == "diou" else []
        for option, value in options.items():
            is_of_layers = option in ("layers", "from")  # counted back from this one
            written = ",".join(str(layer - number) for layer in value) if is_of_layers else value
            lines.append(f"{option}={written}")
    return "\n".join(lines) + "\n"
