"""Darknet's .cfg files as text: their sections, and the options of each. What the layers are: cfg/rows.py.

A cfg is a list of sections, [net] first; the others are the layers, numbered from 0 as Darknet prints them:

    [convolutional]        # comment
    filters=64
    activation=leaky
"""

import re
from dataclasses import dataclass
from pathlib import Path

from yolov3.checks import UserError, read_file

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
SAME = {"conv": "convolutional", "max": "maxpool", "avg": "avgpool", "network": "net"}  # names with a second spelling
MOST_BYTES = 2**22
MOST_SECTIONS = 2000  # the largest networks that people train have 500


@dataclass(frozen=True)
class Section:
    """One section of a cfg. Its methods read options, and raise UserError with file, section and line."""

    file: Path
    number: int  # of the layer, from 0; -1: [net]
    name: str
    line: int  # of its [name]
    options: dict  # name: (text without white space, line)

    def word(self, option: str, default: str) -> str:
        """Return an option as it is written."""
        return self.options.get(option, (default, 0))[0]

    def reals(self, option: str, default: tuple = ()) -> tuple:
        """Return an option that is a list of numbers, separated by commas."""
        if option not in self.options:
            return default
        words = [word for word in self.options[option][0].split(",") if word]
        if not words or not all(NUMBER.fullmatch(word) and abs(float(word)) < 2**31 for word in words):
            raise self.error(f"{option}={self._shown(option)} must be a number or several", option)
        return tuple(float(word) for word in words)

    def real(self, option: str, default: float) -> float:
        """Return an option that is one number."""
        numbers = self.reals(option, (default,))
        if len(numbers) != 1:
            raise self.error(f"{option}={self._shown(option)} must be one number", option)
        return numbers[0]

    def wholes(self, option: str, default: tuple = ()) -> tuple:
        """Return an option that is a list of whole numbers."""
        numbers = self.reals(option, default)
        if any(x != int(x) for x in numbers):
            raise self.error(f"{option}={self._shown(option)} must be whole numbers", option)
        return tuple(int(x) for x in numbers)

    def whole(self, option: str, default: int, least: int | None = None) -> int:
        """Return an option that is one whole number, of `least` or more."""
        number = self.real(option, default)
        if number != int(number) or (least is not None and number < least):
            text = "a whole number" if least is None else f"a whole number, {least} or more"
            raise self.error(f"{option}={self._shown(option)} must be {text}", option)
        return int(number)

    def error(self, text: str, option: str | None = None) -> UserError:
        """Return a UserError that names the file, the section and the line, of an option if there is one."""
        _, line = self.options.get(option, (None, self.line))
        place = f"section {self.number} [{self.name}]" if self.number >= 0 else f"section [{self.name}]"
        return UserError(f"{self.file}, {place}, line {line}: {text}")

    def _shown(self, option):
        text = self.word(option, "")
        return text if len(text) <= 60 else f"{text[:60]} ..."


def read_text(file: Path, remedy: str = "") -> str:
    """Return the text of a cfg. Comments may be in any encoding. Raises UserError, with the remedy if it is missing."""
    data = read_file(file, MOST_BYTES, "cfg", remedy)
    if b"\0" in data:
        raise UserError(f"{file} is not a Darknet cfg: it is not a text file")
    return data.decode("utf-8-sig", "replace")


def lines_of(text: str) -> list[str]:
    """Return the lines of a text whose line ends are of any kind."""
    return re.split("\r\n|\n|\r", text)


def read_sections(text: str, file: Path) -> list[Section]:
    """Return the sections of the text of a cfg, [net] first. Raises UserError, which names the file."""
    sections: list[Section] = []
    for number, written in enumerate(lines_of(text), 1):
        line = "".join(written.split("#")[0].split())  # Darknet drops white space wherever it stands
        if not line or line[0] == ";":
            continue
        name, equals, value = line.partition("=")
        if line[0] == "[" and line[-1] == "]":
            name = SAME.get(line[1:-1], line[1:-1])
            sections.append(Section(file, len(sections) - 1, name, number, {}))
        elif not equals or not sections:
            raise UserError(f"{file}, line {number}: {written.strip()[:60]!r} is neither [section] nor option=value")
        else:
            sections[-1].options.setdefault(name, (value, number))  # of two, Darknet goes by the first
    if not sections or sections[0].name != "net":
        raise UserError(f"{file} is not a Darknet cfg: its first section must be [net]")
    if len(sections) > MOST_SECTIONS:
        raise UserError(f"{file} has {len(sections):,} sections; a cfg may have {MOST_SECTIONS:,}")
    return sections
