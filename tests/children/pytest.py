"""What a child process of a test finds in the place of pytest, until it needs more of it than this.

A child imports the module of its test for the function that it is to run. That module imports pytest, which takes
longer than everything else that a child does at its beginning, and is there for what a child never runs: the tests.
"""

from late import whole


class Mark:
    """Any mark: of a function, of a class, or for ``pytestmark``."""

    def __getattr__(self, name):
        return self

    def __call__(self, *arguments, **options):
        return arguments[0] if len(arguments) == 1 and not options and callable(arguments[0]) else self


mark = fixture = Mark()


def param(*values, **options):
    return values


__getattr__ = whole(__name__)
