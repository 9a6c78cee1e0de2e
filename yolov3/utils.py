"""The door users know: the named entry points, from wherever they live. Nothing else is here."""

from yolov3.darknet import load_yolo_weights, save_yolo_weights
from yolov3.detect import detect_image, detect_realtime, detect_video
from yolov3.loading import Load_Yolo_model
from yolov3.media.drawing import draw_detections

__all__ = [
    "Load_Yolo_model",
    "detect_image",
    "detect_realtime",
    "detect_video",
    "draw_detections",
    "load_yolo_weights",
    "save_yolo_weights",
]
