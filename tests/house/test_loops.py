"""Loops that a Ctrl-C can leave without the ``__exit__``, ``except`` and ``finally`` of the block around them.

CPython 3.13 (seen in 3.13.0; its issue 130279 reports 3.13.1 and 3.13.2 too) leaves the jump back to the beginning of a
``while`` with a condition out of the block around the loop. An exception of a signal handler that arrives in this jump
passes the block by: a lock stays held, a file stays open. ``while True:`` with ``if ...: break`` has no such jump.
"""

import dis
import itertools
import re
import types
from pathlib import Path

import catkit_devices

PACKAGE = Path(catkit_devices.__file__).parent


def codes_of(code):
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from codes_of(constant)


def unprotected_jumps(source, file):
    """Yield ``file:line function`` of each jump back that is outside of a block in which its loop begins and ends."""
    for code in codes_of(compile(source, file, "exec")):
        entries = dis._parse_exception_table(code)
        instructions = list(dis.get_instructions(code))
        named = {one.offset: one.opname for one in instructions}
        # Other targets are what the compiler adds to comprehensions, generators and coroutines.
        blocks = [one for one in entries if named[one.target] == "PUSH_EXC_INFO"]

        def around(offset, blocks=blocks):
            return {one.target for one in blocks if one.start <= offset < one.end}

        for before, jump in itertools.pairwise(instructions):
            if jump.opname == "JUMP_BACKWARD":  # the other one, of `await`, cannot be interrupted
                begin = jump.argval
                if around(before.offset) & around(begin) - around(jump.offset):
                    yield f"{file}:{jump.positions.lineno} {code.co_qualname}"


def test_no_loop_can_be_left_without_the_end_of_the_block_around_it():
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        source = path.read_text("utf-8")
        if re.search(r"^ +while (?!True:)", source, re.MULTILINE):
            found += unprotected_jumps(source, str(path.relative_to(PACKAGE)))
    assert not found, "write `while True:` with `if ...: break` (see the head of this file)"
