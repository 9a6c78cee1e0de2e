"""Describe the network of a Darknet cfg: its layers, parameters, GFLOPs, heads, classes and input.

python tools/Describe_cfg.py mine.cfg
python tools/Describe_cfg.py mine.cfg mine.weights       and whether the weights fit it

A GFLOP is 10^9 operations of the convolutions for one picture, a multiplication and an addition each, at the input size
in [net].
"""

import _path
from yolov3.cfg.network import Cfg, embedding_row, map_sizes, read_network
from yolov3.cfg.rows import Row
from yolov3.checks import as_given, printable, project_path, say_it_in_one_line, shell_path
from yolov3.settings import ScriptParser

SHOWN = ("size", "stride", "padding", "groups", "activation")  # options of a layer


def operations(cfg: Cfg) -> list[int]:
    """Return the operations of each layer at the input size of the cfg."""
    counts = []
    for row, (height, width) in zip(cfg.rows, map_sizes(cfg, cfg.size), strict=True):
        per_cell = 0
        if row.name == "convolutional":
            read = cfg.rows[row.inputs[0]].channels if row.inputs[0] >= 0 else 3
            per_cell = 2 * row.options["size"] ** 2 * read // row.options["groups"] * row.channels
        counts.append(per_cell * height * width)
    return counts


def describe_row(row: Row, size: tuple[int, int], count: int) -> str:
    """Return the line of one layer, of a map of a size (height, width), that takes so many operations."""
    options = {name: option for name, option in row.options.items() if name in SHOWN and option not in (0, 1, "linear")}
    facts = [f"{name} {option}" for name, option in options.items()]
    if row.inputs != (row.number - 1,):
        facts.append(f"reads {', '.join(map(str, row.inputs))}")
    made = f"{size[0]} x {size[1]} x {row.channels}"
    return f"{row.number:5} {row.name:15} {made:18} {count / 1e9:8.3f}  {', '.join(facts)}".rstrip()


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("cfg", help="Darknet cfg")
    parser.add_argument("weights", nargs="?", help="Darknet .weights file")
    arguments = parser.parse_args()
    network = read_network(project_path(as_given(arguments.cfg)))
    cfg: Cfg = network.cfg
    sizes, counts = map_sizes(cfg, cfg.size), operations(cfg)

    print("layer kind            height, width, channels  GFLOPs")
    for row, size, count in zip(cfg.rows, sizes, counts, strict=True):
        print(describe_row(row, size, count))
    height, width = cfg.size
    total = f"{cfg.parameters:,} parameters, {sum(counts) / 1e9:.2f} GFLOPs"
    print(f"\n{printable(network.name)}: {len(cfg.rows)} layers, {total}")
    print(f"input: {height} x {width} pixels (height, width), or other multiples of {network.multiple}")
    heads = network.heads
    of_classes = f"head of {cfg.classes} class{'es' * (cfg.classes > 1)}"
    for stride, anchors, scale in zip(heads.strides, heads.anchors, heads.scale_x_y, strict=True):
        listed = ", ".join(f"{width:g} x {height:g}" for width, height in anchors)
        print(f"{of_classes} at stride {stride}, scale_x_y {scale:g}: anchors {listed}")
    print(f"suppression: {heads.nms}, coordinates: {'new' if heads.new_coords else 'as in YOLOv3'}")
    embedded = embedding_row(cfg)
    print(f"embeddings: {f'of layer {embedded.number}' if embedded else 'none, since no layer is at stride 4 or 8'}")

    if arguments.weights is not None:
        from yolov3.darknet import load_yolo_weights
        from yolov3.yolov4 import Create_Yolo

        load_yolo_weights(Create_Yolo(cfg=cfg.file), shell_path(arguments.weights).absolute())
        print(f"{printable(arguments.weights)} fits")


if __name__ == "__main__":
    main()
