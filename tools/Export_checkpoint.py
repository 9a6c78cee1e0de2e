"""Export a trained checkpoint as Darknet's .weights and .cfg, or as a folder of half the size.

python tools/Export_checkpoint.py yolo_custom mine.weights                 for Darknet, OpenCV and others
python tools/Export_checkpoint.py yolo_custom model_data/mine --overwrite      the same folder in float16

The checkpoint is a folder, or its bare name under checkpoints/. A .weights file holds neither classes nor anchors, so
mine.cfg, which does, is written beside it. Darknet, OpenCV and the scripts of this project read it.
"""

import _path
from yolov3 import configs
from yolov3.cfg.write import cfg_text
from yolov3.checkpoint import find, own_cfg, read_about, read_model, read_weights, write_checkpoint
from yolov3.checks import UserError, say_it_in_one_line, shell_path
from yolov3.darknet import array_shapes, load_arrays, save_yolo_weights
from yolov3.files import check_writable, whole_file
from yolov3.settings import ScriptParser
from yolov3.yolov4 import make_model

import numpy as np


@say_it_in_one_line
def main() -> None:
    parser = ScriptParser(__doc__)
    parser.add_argument("checkpoint", help="folder, or its name under checkpoints/")
    parser.add_argument("output", help="file that ends in .weights, or a folder")
    parser.add_argument("--overwrite", action="store_true", help="replace files that exist")
    arguments = parser.parse_args()
    folder = find(arguments.checkpoint, configs.TRAIN_YOLO_TINY, configs.TRAIN_CHECKPOINTS_FOLDER)
    spec = read_model(folder)
    output = shell_path(arguments.output).absolute()
    cfg = output.with_suffix(".cfg")
    for file in (output, cfg) if output.suffix == ".weights" else (output,):
        if file.exists() and not arguments.overwrite:
            raise UserError(f"{file} is there already: give --overwrite to replace it")
        if file.exists() and file.samefile(folder):
            raise UserError(f"output {file} is the checkpoint itself: name another folder")
    check_writable(output.parent)

    network = make_model(spec.network, spec.input_size, len(spec.classes))
    arrays = read_weights(folder, array_shapes(network))
    load_arrays(network, arrays, folder)
    if output.suffix == ".weights":
        save_yolo_weights(network, output)
        with whole_file(cfg) as part:
            given = spec.heads, len(spec.classes), spec.input_size
            part.write_text(own_cfg(spec) if spec.cfg else cfg_text(network, *given), encoding="utf-8")
        print(f"written: {cfg}")
    else:
        made_from = read_about(folder).get("made_from")
        write_checkpoint(output, spec, arrays, f"{made_from}; in float16", np.float16)
    print(f"written: {output}")


if __name__ == "__main__":
    main()
