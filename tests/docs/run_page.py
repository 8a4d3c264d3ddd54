"""Run the code of one page, from top to bottom, in the current directory: ``python run_page.py PAGE``.

It runs as a program of its own, as a reader would: the blocks' names are those of ``__main__``, child processes are
real, and so is what they print.
"""

import doctest
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

from doc_pages import HARDWARE, Block, blocks_of

_MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def main(page: Path) -> None:
    namespace = types.ModuleType("__main__")
    sys.modules["__main__"] = namespace  # so that what is defined there travels as from a script or a notebook
    sys.argv[0] = page.name
    sys.path.insert(0, "")
    printed = ""
    for block in blocks_of(page):
        where = f"{page}:{block.line}"
        if block.is_file:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            printed = _printed_by(lambda code=code: exec(code, vars(namespace)))
        elif block.language == "bash":
            if block.title != HARDWARE:
                printed = _printed_by(lambda block=block: _shell(block))
        elif block.language == "text":
            if not doctest.OutputChecker().check_output(block.text, printed, _MATCH):
                raise SystemExit(f"{where}: expected\n{block.text}\nprinted was\n{printed}")
        else:
            raise SystemExit(f"{where}: a block of {block.language or 'no language'!r} is neither a file nor run")


def _shell(block: Block) -> None:
    subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], check=True, timeout=100)


def _printed_by(run) -> str:
    """Return what is printed, by child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            run()
            sys.stdout.flush()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            printed = file.read().decode()
            print(printed, end="", flush=True)
    return printed


if __name__ == "__main__":
    main(Path(sys.argv[1]))
