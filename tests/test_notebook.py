"""evaluate.ipynb as it lies in git; .ci/run executes it."""

import json
import re
import shlex

from yolov3.checks import PROJECT

import pytest

NOTEBOOK = json.loads((PROJECT / "evaluate.ipynb").read_text(encoding="utf-8"))
CELLS = NOTEBOOK["cells"]
SHELL = "%%bash -e\n"  # without -e, a command that fails in the middle is not noticed


def source(cell):
    return "".join(cell["source"])


def commands():
    """[script, arguments ...] of every script that a cell runs."""
    for cell in CELLS:
        if source(cell).startswith(SHELL):
            lines = source(cell)[len(SHELL) :].replace("\\\n", "").splitlines()
            for words in map(shlex.split, lines):
                if words[1:2] == ["-m"]:
                    yield [words[2].replace(".", "/") + ".py", *words[3:]]
                elif len(words) > 1 and words[1].endswith(".py"):
                    yield words[1:]


def test_it_is_a_notebook_of_short_cells_in_which_no_output_is_kept():
    assert (NOTEBOOK["nbformat"], NOTEBOOK["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in CELLS}) == len(CELLS)
    for cell in CELLS:
        assert cell["cell_type"] in ("markdown", "code") and re.fullmatch("[-a-z]{1,64}", cell["id"])
        assert len(source(cell).splitlines()) <= 22 and max(map(len, source(cell).splitlines())) <= 120
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None
    code = [cell for cell in CELLS if cell["cell_type"] == "code"]
    assert 8 <= len(code) <= 12


def test_a_command_that_fails_ends_it():
    for cell in CELLS:
        if cell["cell_type"] == "code":
            assert not re.search(r"^\s*!", source(cell), re.M)  # goes on whatever the command says
            assert source(cell).startswith(SHELL) or "%" not in source(cell)


def test_it_walks_the_whole_way():
    scripts = list(dict.fromkeys(words[0] for words in commands()))
    assert scripts == [
        "tools/Make_digits.py",
        "tools/Convert_to_pb.py",
        "tools/Convert_to_Neuron.py",
        "evaluate_mAP.py",
        "tools/benchmarks/serving.py",
        "tools/benchmarks/compare_frameworks.py",
    ]


@pytest.mark.parametrize("words", list(commands()), ids=lambda words: words[0])
def test_what_it_calls_is_there(words):
    script, *arguments = words
    text = (PROJECT / script).read_text(encoding="utf-8")
    for option in (word for word in arguments if word.startswith("--")):
        assert f'"{option}"' in text
