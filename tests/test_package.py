"""pip install -e . and the Python examples of the README, as they stand, from another folder."""

import re
import subprocess
import sys

from yolov3.checks import PROJECT

import cv2
import pytest
from test_scripts import project  # noqa: F401  a fixture

IMPORTED_LATE = """
import sys, keras
print("matplotlib.pyplot" in sys.modules, keras.visualization.plot_image_gallery, keras.wrappers.SKLearnClassifier)"""
EXAMPLES = re.findall(r"```python\n(.*?)```", (PROJECT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


@pytest.mark.slow
def test_the_python_examples_of_the_readme_run_as_they_stand_from_another_folder(project, tmp_path):  # noqa: F811
    root, installed, elsewhere = project(), tmp_path / "installed", tmp_path / "elsewhere"
    elsewhere.mkdir()
    offline = "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"
    install = [sys.executable, "-m", "pip", "install", "-q", *offline, "--target", installed, "-e", root]
    subprocess.run(install, check=True, cwd=elsewhere)
    assert len(EXAMPLES) >= 1
    for example in EXAMPLES:
        code = f"import site\nsite.addsitedir({str(installed)!r})\nimport deep_sort\n{example}{IMPORTED_LATE}"
        ran = subprocess.run([sys.executable, "-c", code], cwd=elsewhere, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        assert "cup" in ran.stdout
        assert re.search("\nFalse <function plot_image_gallery .* <class .*SKLearnClassifier'>\n", ran.stdout)
    assert cv2.imread(str(elsewhere / "out.jpg")).shape == (400, 600, 3)
    assert cv2.VideoCapture(str(elsewhere / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) > 100
