"""Drawing: stays inside the picture, readable labels, stable colours."""

import itertools

from yolov3.detector import Detections
from yolov3.media.drawing import class_colour, draw_detections, draw_labels, ink_on

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


@pytest.mark.parametrize("box", [(50, 0, 150, 100), (0, 0, 400, 200), (390, 190, 400, 200), (-20, -20, 30, 30)])
def test_the_label_of_a_box_at_the_edge_is_drawn_inside_the_picture(box):
    picture = np.zeros((200, 400, 3), np.uint8)
    (tab,) = draw_labels(picture, np.array([box]), [("person 0.99", "person")], [(255, 0, 0)])
    left, top, right, bottom = tab
    assert 0 <= left < right <= 400 and 0 <= top < bottom <= 200
    red = (picture == (255, 0, 0)).all(-1)
    assert red[top:bottom, left:right].mean() > 0.3  # the filled tab, less its letters


def test_labels_of_neighbours_keep_out_of_each_others_way():
    picture = np.zeros((400, 600, 3), np.uint8)
    corners = np.array([(x, 100, x + 60, 250) for x in (200, 210, 220, 230)])
    tabs = draw_labels(picture, corners, [("person 0.99", "person")] * 4, [(255, 0, 0)] * 4)
    assert tabs[0][3] == 100  # above its box
    assert None not in tabs
    assert not any(overlap(a, b) for a, b in itertools.combinations(tabs, 2))


def overlap(a, b):
    """Shared pixels of two xyxy boxes."""
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def test_labels_hide_neither_small_objects_nor_one_another():
    random = np.random.default_rng(0)
    for size, count in ((30, 40), (16, 60), (90, 12)):
        picture = np.zeros((480, 640, 3), np.uint8)
        corners = np.tile(random.integers(0, (640 - size, 480 - size), (count, 2)), 2) + (0, 0, size, size)
        tabs = draw_labels(picture, corners, [("person 0.99", "person")] * count, [(255, 0, 0)] * count)
        there = [tab for tab in tabs if tab]
        assert len(there) > count / 3
        assert not any(overlap(a, b) for a, b in itertools.combinations(there, 2))
        hidden = [overlap(tab, box) / size**2 for tab in there for box in corners]
        assert max(hidden) <= 0.5 and np.mean([x > 0.12 for x in hidden]) < 0.02


def test_a_small_object_alone_has_its_whole_label_outside_its_box():
    picture = np.zeros((480, 640, 3), np.uint8)
    (tab,) = draw_labels(picture, np.array([[300, 200, 312, 214]]), [("person 0.99", "person")], [(255, 0, 0)])
    assert not overlap(tab, (300, 200, 312, 214))
    assert tab[2] - tab[0] > 60


def test_labels_are_left_out_on_request():
    picture = np.zeros((200, 300, 3), np.uint8)
    draw_detections(picture, detections((100, 80, 200, 180)), colour=(255, 0, 0), labels=False)
    assert picture[100, 100].any()
    assert not picture[:79].any()


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
