"""Drawing: stays inside the picture, readable labels, stable colours."""

from yolov3.detector import Detections
from yolov3.media.drawing import class_colour, draw_detections, draw_label, ink_on

import numpy as np
import pytest


def detections(*boxes):
    n = len(boxes)
    names = ("a person with a long name", "dog")
    return Detections(np.array(boxes, np.float32), np.linspace(0.9, 0.5, n, dtype=np.float32), np.arange(n) % 2, names)


@pytest.mark.parametrize("size", [(1, 1), (8, 300), (480, 640), (1080, 1920)])
def test_draws_boxes_anywhere_on_pictures_of_any_size(size):
    height, width = size
    picture = np.full((height, width, 3), 127, np.uint8)
    edges = detections((0, 0, width, height), (width - 1, height - 1, width, height), (0, 0, 1, 1))
    drawn = draw_detections(picture, edges)
    assert drawn is picture
    assert (drawn != 127).any()


def test_the_label_of_a_box_at_the_top_is_drawn_inside_the_picture():
    picture = np.zeros((200, 400, 3), np.uint8)
    draw_detections(picture, detections((50, 0, 150, 100)), colour=(255, 0, 0))
    red = (picture == (255, 0, 0)).all(-1)
    assert red[2:12, 60:140].mean() > 0.3  # the filled tab, less its letters


def test_labels_of_neighbours_keep_out_of_each_others_way():
    picture = np.zeros((400, 600, 3), np.uint8)
    taken = []
    for x in (200, 210, 220, 230):
        taken.append(draw_label(picture, (x, 100, x + 60, 250), "person 0.99", (255, 0, 0), taken))
    first, second, third, fourth = taken
    assert first[3] == 100  # above its box
    assert len({tab[1] for tab in taken}) == 4  # the others elsewhere at theirs
    assert all(b[1] >= a[3] or b[3] <= a[1] for a, b in ((first, second), (second, third), (third, fourth)))


def test_one_colour_for_all_is_given_as_red_green_blue():
    picture = np.zeros((100, 100, 3), np.uint8)
    draw_detections(picture, detections((20, 40, 80, 90)), colour=(255, 0, 0))
    assert (picture[60, 20] == (255, 0, 0)).all()


def test_class_colours_differ_and_are_the_same_in_every_run():
    colours = [class_colour(i) for i in range(80)]
    assert len(set(colours)) == 80
    assert colours[:3] == [(255, 25, 25), (25, 92, 255), (159, 255, 25)]


def contrast(a, b):
    """WCAG 2 contrast ratio of two sRGB colours."""

    def luminance(colour):
        linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in (x / 255 for x in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(a), luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_labels_read_well_on_every_class_colour():
    assert min(contrast(class_colour(i), ink_on(class_colour(i))) for i in range(80)) > 3  # WCAG AA for large text
