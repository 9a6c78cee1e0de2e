"""The door users know: the named entry points, from wherever they live. Nothing else is here."""

from yolov3.darknet import load_yolo_weights, save_yolo_weights
from yolov3.detector import Load_Yolo_model

__all__ = ["Load_Yolo_model", "load_yolo_weights", "save_yolo_weights"]
