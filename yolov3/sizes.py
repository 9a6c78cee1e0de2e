"""The size of a network input as files, folder names and command lines have it.

Inside the library it is always (height, width) in pixels, as `checks.check_input_size` returns it.
"""


def written_size(size: tuple[int, int]) -> int | list[int]:
    """Return a size as files hold it: one number for a square, [height, width] for any other."""
    return size[0] if size[0] == size[1] else list(size)


def size_name(size: tuple[int, int]) -> str:
    """Return a size as names of folders hold it: 416 for a square, 256x416 for any other."""
    return "x".join(map(str, dict.fromkeys(size)))


def size_of(word: str) -> int | tuple[int, ...]:
    """Return the size that a word of a command line means, 416 or 256x416, for `checks.check_input_size`.

    Raises ValueError, which argparse turns into a message.
    """
    sides = tuple(int(side) for side in word.split("x"))
    return sides[0] if len(sides) == 1 else sides
