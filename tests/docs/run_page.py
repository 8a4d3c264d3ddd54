"""Run the code of one page, from top to bottom, in the current directory: a program, with the page as its argument.

It runs as a program of its own, as a reader would: the Python blocks share the namespace of ``__main__``, the shell
blocks share one shell, child processes are real, and so is what they print.
"""

import doctest
import os
import subprocess
import sys
import tempfile
import types
from pathlib import Path

from doc_pages import HARDWARE, blocks_of

_MATCH = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def main() -> None:
    page = Path(sys.argv[1])
    namespace = types.ModuleType("__main__")
    sys.modules["__main__"] = namespace  # so that what is defined there travels as from a script or a notebook
    sys.argv[0] = page.name
    sys.path.insert(0, "")
    shell = Shell()
    printed = ""
    for block in blocks_of(page):
        where = f"{page}:{block.line}"
        if block.is_file:
            file = Path(block.title)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            printed = printed_by(code, namespace)
        elif block.language == "bash":
            if block.title != HARDWARE:
                printed = shell.run(block.text, where)
        elif block.language == "text":
            if not doctest.OutputChecker().check_output(block.text, printed, _MATCH):
                raise SystemExit(f"{where}: expected was\n{block.text}\nprinted was\n{printed}")
        elif block.language != "none":
            raise SystemExit(f"{where}: a block of {block.language or 'no language'!r} is neither a file nor run")
    shell.run("wait", f"{page}: what was started in the background")


class Shell:
    """One bash for all shell blocks of a page, as in one terminal; it ends at the first command that fails."""

    def __init__(self) -> None:
        self._done, done = os.pipe()
        self._directory = tempfile.TemporaryDirectory()
        self._bash = subprocess.Popen(["bash", "-euo", "pipefail"], stdin=subprocess.PIPE, text=True, pass_fds=[done])
        self._say = f"echo >&{done}"
        os.close(done)

    def run(self, text: str, where: str) -> str:
        """Return what the commands print."""
        block, output = (Path(self._directory.name, name) for name in ("block", "output"))
        block.write_text(text)
        self._bash.stdin.write(f"{{ . {block}; }} </dev/null >{output}; {self._say}\n")
        self._bash.stdin.flush()
        ended = not os.read(self._done, 1)
        printed = output.read_text()
        print(printed, end="", flush=True)
        if ended:
            raise SystemExit(f"{where}: the shell ended with code {self._bash.wait()}")
        return printed


def printed_by(code: types.CodeType, namespace: types.ModuleType) -> str:
    """Run a Python block; return what is printed, by child processes too."""
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 1)
        try:
            exec(code, vars(namespace))
            sys.stdout.flush()
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            printed = file.read().decode()
            print(printed, end="", flush=True)
    return printed


if __name__ == "__main__":
    main()
