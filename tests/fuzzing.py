"""Seeded mutations of the files in `fuzz_kinds`, whose readers must tell what is wrong with each.

    python tests/fuzzing.py 1000          # the same as: pytest -m slow tests/test_fuzz.py
    python tests/fuzzing.py 300 5000      # the mutations 5000 to 5299

A mutation is a function of its number. It passes where the reader returns, or raises an error that is told to the user
in one line (exit code 2), and takes less than LIMIT_SECONDS.
"""

from __future__ import annotations

import random
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fuzz_kinds import Kind, kinds

from distill3d.cli import is_for_the_user

LIMIT_SECONDS = 20.0  # of the processor's time for one file
TOKENS = (
    "1e400",
    "-1",
    "0",
    "nan",
    "null",
    "[]",
    "{}",
    '"',
    "<",
    "&",
    "%",
    "\x00",
    "9" * 400,
    "../../x",
    "ÿ",
    "[" * 3000,
)


def mutated(whole: bytes, rng: random.Random) -> bytes:
    """One to three changes: bits, cuts, pieces repeated, swapped or replaced by words that are seldom expected."""
    data = bytearray(whole)
    for _ in range(rng.randint(1, 3)):
        place, size = rng.randrange(len(data) + 1), rng.randint(1, 40)
        kind = rng.randrange(7)
        if kind == 0 and data:
            data[place % len(data)] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del data[place : place + size]
        elif kind == 2:
            data[place:place] = data[place : place + size] * rng.randint(1, 50)
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            data[place : place + rng.randint(0, 8)] = rng.choice(TOKENS).encode()
        elif kind == 5:
            data[place:place] = struct.pack("<I", rng.choice((0, 1, 2**31 - 1, 2**32 - 1)))
        else:  # a number of a text
            digits = [i for i, byte in enumerate(data) if chr(byte).isdigit()]
            if digits:
                data[(at := rng.choice(digits)) : at + 1] = rng.choice(TOKENS[:8]).encode()
    return bytes(data)


class Hang(BaseException):
    """Not an Exception, so that no reader tells it as a fault of its file."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise Hang after so much of the processor's time, where the system has such an alarm."""
    if not hasattr(signal, "setitimer"):
        yield
        return

    def stop(number: int, frame: object) -> None:
        raise Hang

    earlier = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, earlier)


def attempt(number: int, all_kinds: list[Kind], folder: Path) -> str | None:
    """What is wrong with how mutation ``number`` was taken; None where nothing is."""
    rng = random.Random(number)
    kind = all_kinds[number % len(all_kinds)]
    own = folder / str(number)
    own.mkdir()
    path = own / kind.name
    path.write_bytes((kind.mutate or mutated)(kind.whole, rng))
    begun, found = time.process_time(), None
    try:
        with warnings.catch_warnings(), limited(LIMIT_SECONDS):
            warnings.simplefilter("ignore")
            kind.read(path)
    except Hang:
        found = f"mutation {number} of {kind.name} hangs"
    except Exception as error:  # noqa: BLE001, as it is what a user would see
        if not is_for_the_user(error):
            found = f"mutation {number} of {kind.name}: {type(error).__name__}: {str(error)[:200]}"
    seconds = time.process_time() - begun
    if seconds > LIMIT_SECONDS:
        found = f"mutation {number} of {kind.name} took {seconds:.0f} s"
    return found


def run(numbers: range) -> list[str]:
    """What went wrong with these mutations."""
    with tempfile.TemporaryDirectory() as folder:
        every = kinds()
        return [found for number in numbers if (found := attempt(number, every, Path(folder)))]


if __name__ == "__main__":
    count, first = (int(sys.argv[i]) if len(sys.argv) > i else usual for i, usual in ((1, 1000), (2, 0)))
    complaints = run(range(first, first + count))
    sys.stdout.write("\n".join([*complaints, f"{len(complaints)} complaints\n"]))
    sys.exit(bool(complaints))
