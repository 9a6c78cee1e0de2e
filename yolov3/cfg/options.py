"""The options of a cfg's sections: those that are read, those of training, and those that are refused.

Darknet passes over what it does not know, and so over a misspelt option. Here every option is either read, or of
training alone (PASSED_OVER), or refused with the number, name and line of its section.
"""

import difflib
from collections.abc import Sequence

from yolov3.cfg.sections import Section

# fmt: off
PASSED_OVER = {  # of training, or of how Darknet runs: they change no detection. "": in any section
    "": (
        "burnin_update", "clip", "dont_update", "learning_rate", "onlyforward", "stopbackward", "stream",
        "train_only_bn", "wait_stream",
    ),
    "net": (
        "B1", "B2", "adam", "adversarial_lr", "angle", "aspect", "attention", "augment_speed",
        "badlabels_rejection_percentage", "batch", "blur", "burn_in", "contrastive", "contrastive_color",
        "contrastive_jit_flip", "cutmix", "decay", "dynamic_minibatch", "ema_alpha", "eps", "equidistant_point",
        "exposure", "flip", "gamma", "gaussian_noise", "hue", "inputs", "label_smooth_eps", "learning_rate_min",
        "letter_box", "loss_scale", "max_batches", "max_chart_loss", "max_crop", "max_epochs", "min_crop", "mixup",
        "momentum", "mosaic", "mosaic_bound", "num_sigmas_reject_badlabels", "optimized_memory", "policy", "power",
        "resize_step", "saturation", "scale", "scales", "seq_scales", "sequential_subdivisions", "sgdr_cycle",
        "sgdr_mult", "step", "steps", "subdivisions", "time_steps", "track", "try_fix_nan", "unsupervised",
        "use_cuda_graph", "weights_reject_freq", "workspace_size_limit_MB",
    ),
    "convolutional": ("angle", "assisted_excitation", "coordconv", "dot", "grad_centr", "reverse"),
    "maxpool": ("out_channels",),
    "shortcut": ("weights_normalization",),
    "dropout": ("dropblock", "dropblock_size_abs", "dropblock_size_rel", "probability"),
    "yolo": (
        "beta1", "cls_normalizer", "counters_per_class", "delta_normalizer", "dets_for_show", "dets_for_track",
        "embedding_layer", "focal_loss", "ignore_thresh", "iou_loss", "iou_normalizer", "iou_thresh",
        "iou_thresh_kind", "jitter", "label_smooth_eps", "map", "max", "max_delta", "obj_normalizer",
        "objectness_smooth", "random", "resize", "show_details", "sim_thresh", "track_ciou_norm",
        "track_history_size", "truth_thresh", "uc_normalizer",
    ),
}
READ = {
    "net": ("width", "height", "channels"),
    "convolutional": (
        "activation", "batch_normalize", "cbn", "dilation", "filters", "groups", "pad", "padding", "size", "stride",
        "stride_x", "stride_y",
    ),
    "maxpool": ("padding", "size", "stride", "stride_x", "stride_y"),
    "upsample": ("stride",),
    "route": ("group_id", "groups", "layers"),
    "shortcut": ("activation", "from", "weights_type"),
    "avgpool": (),
    "scale_channels": ("activation", "from"),
    "dropout": (),
    "yolo": ("anchors", "beta_nms", "classes", "mask", "new_coords", "nms_kind", "num", "scale_x_y"),
}
REFUSED: dict[str, dict[str, float | None]] = {  # what changes a detection and is not implemented, and where it is off
    "": {"dontload": 0, "dontloadscales": 0},
    "convolutional": {
        "antialiasing": 0, "bin_output": 0, "binary": 0, "flipped": 0, "rotate": 0, "share_index": None, "stretch": 0,
        "stretch_sway": 0, "sway": 0, "xnor": 0,
    },
    "maxpool": {"antialiasing": 0, "maxpool_depth": 0, "maxpool_zero_nonmax": 0},
    "upsample": {"scale": 1},
    "scale_channels": {"scale_wh": 0},
}
# fmt: on


def check_options(section: Section) -> None:
    """Raise UserError at an option that is not known, or that is not implemented."""
    refused = REFUSED[""] | REFUSED.get(section.name, {})
    known = {*READ[section.name], *PASSED_OVER[""], *PASSED_OVER.get(section.name, ()), *refused}
    for option, (value, _) in section.options.items():
        if option not in known:
            near = difflib.get_close_matches(option, known, 1)
            raise section.error(f"{option}={value[:60]} is not known{f': is it {near[0]}?' if near else ''}", option)
        if option in refused and (refused[option] is None or section.real(option, 0) != refused[option]):
            raise section.error(f"{option}={value[:60]} is not implemented", option)


def choice(section: Section, option: str, default: str, known: Sequence[str]) -> str:
    """Return an option that is one of the known words. Raises UserError that lists them."""
    word = section.word(option, default)
    if word not in known:
        raise section.error(f"{option}={word[:60]} is not known: choose one of {', '.join(known)}", option)
    return word


def square_stride(section: Section) -> int:
    """Return the stride of a section, the same down and across."""
    stride = section.whole("stride", 1, 1)
    along = [section.whole(option, stride) for option in ("stride_y", "stride_x")]
    down, across = (x if x > 0 else stride for x in along)  # Darknet takes these for not given
    if down != across:
        raise section.error(f"stride_y={down} and stride_x={across} must be the same", "stride_x")
    return down
