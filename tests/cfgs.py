"""Small networks as cfgs, which together hold every section, activation and padding that is read."""


def section(name, **options):
    """Return a section as text; `from_` is the option `from`."""
    return "\n".join([f"[{name}]", *(f"{option.rstrip('_')}={value}" for option, value in options.items())])


def net(size=96):
    return section("net", batch=1, subdivisions=1, width=size, height=size, channels=3, momentum=0.9, angle=0)


def conv(filters, size=3, stride=1, activation="leaky", normalise=1, **options):
    numbers = {"filters": filters, "size": size, "stride": stride, "pad": 1, **options}
    return section("convolutional", batch_normalize=normalise, **numbers, activation=activation)


def head(anchors, mask, classes, new_coords=False, size=1, **options):
    """Return the last convolution and the [yolo] behind it; mask: the anchors (width, height) of all heads it takes."""
    listed = ", ".join(f"{width},{height}" for width, height in anchors)
    numbers = {"classes": classes, "num": len(anchors), "jitter": 0.3, **options}
    if new_coords:
        numbers["new_coords"] = 1
    yolo = section("yolo", mask=",".join(map(str, mask)), anchors=listed, **numbers)
    return f"{conv(len(mask) * (5 + classes), size, 1, 'logistic' if new_coords else 'linear', 0)}\n{yolo}"


def cfg(*sections, size=96):
    return "\n\n".join((net(size), *sections)) + "\n"


ANCHORS = ((4, 6), (11, 9), (18, 24), (31, 20), (40, 52), (66, 60), (80, 34))

# Every convolution, pooling and way to put maps together; heads of 1, 4 and 2 anchors at strides 8, 16 and 32
MIXED = cfg(
    conv(16, 7, 2, "mish"),
    section("maxpool", size=3, stride=2),  # the pixel outside is at the top left
    conv(32, 1, 1, "swish"),
    conv(32, 3, 1, "relu", groups=4),
    conv(64, 3, 1, "leaky", groups=32),  # two filters a channel
    section("dropout", probability=0.5),
    section("shortcut", from_=-4, activation="leaky"),  # 64 channels, of which the other has 32
    conv(24, 5, 2, "logistic", 0),  # 7: stride 8
    section("avgpool"),
    conv(8, 1, 1, "relu", 0),
    conv(24, 1, 1, "logistic", 0),
    section("scale_channels", from_=-4),  # 11
    section("shortcut", from_="-5,-1", activation="mish"),
    conv(32, 3, 1, "mish"),
    section("route", layers="-1,-2", groups=2, group_id=1),  # 14: 16 + 12 channels
    conv(40, 3, 2, "swish"),  # 15: stride 16
    section("maxpool", size=2, stride=1),
    section("maxpool", size=5, stride=1),
    section("route", layers="-1,-2,-3"),
    section("shortcut", from_=-4, activation="linear"),  # 120 channels, of which the other has 40
    section("maxpool", size=2, stride=2, padding=0),  # 20: stride 32
    conv(64, 3, 1, "leaky"),
    head(ANCHORS, (5, 6), 3, scale_x_y=1.05),
    section("route", layers=-3),  # 24
    section("upsample", stride=4),
    section("shortcut", from_=7, activation="relu"),  # 64 channels, of which the other has 24
    head(ANCHORS, (0,), 3, size=3, scale_x_y=1.2),
    section("route", layers=-3),  # 29
    section("maxpool", size=3, stride=2, padding=1),
    section("route", layers="-1,15"),
    head(ANCHORS, (1, 2, 3, 4), 3, scale_x_y=1.1, nms_kind="greedynms", beta_nms=0.6),
)

# One head of nine anchors for one class
ONE_HEAD = cfg(
    conv(12, 3, 2, "relu"),
    section("maxpool", size=2, stride=2),
    conv(16, 3, 2, "leaky"),
    head([(6 + 7 * i, 50 - 5 * i) for i in range(9)], range(9), 1),
)

# The coordinates of the scaled YOLOv4 networks; the head's answer is read by another layer too
NEW_COORDS = cfg(
    conv(16, 3, 2, "mish"),
    conv(24, 3, 2, "swish"),
    conv(32, 3, 2, "mish"),
    head(ANCHORS, (0, 1, 2, 3), 2, new_coords=True, scale_x_y=2.0),
    section("route", layers=-2),
    conv(48, 3, 2, "leaky"),
    head(ANCHORS, (4, 5, 6), 2, new_coords=True, scale_x_y=2.0, nms_kind="diounms", beta_nms=0.6),
)
