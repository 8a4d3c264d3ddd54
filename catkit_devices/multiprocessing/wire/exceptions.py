"""Carrying an exception, whole, from one process to another.

Type, args, attributes, notes, cause, context, groups and the remote frames arrive; no constructor runs on the way, so
a class with any signature survives. What cannot be rebuilt where it arrives becomes a ``RemoteError`` with the full
text, and never breaks the connection that carried it.
"""

from __future__ import annotations

import pickle
import traceback
from types import MemberDescriptorType, TracebackType
from typing import Any

from catkit_devices.errors import RemoteError
from catkit_devices.multiprocessing.wire.channel import dumps, loads

__all__ = ["decode", "encode"]

_MOST_FRAMES = 100
"""Of a longer traceback the outermost and the innermost halves are carried."""
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes that were made while the program runs
_LINKS = ("__cause__", "__context__")
_Frame = tuple[str, str, int, str]
_Node = dict[str, Any]


def encode(error: BaseException) -> bytes:
    """Return the exception, with everything that hangs on it, as bytes. Does not fail, whatever the exception is."""
    found = [error]
    numbers = {id(error): 0}

    def number(linked: BaseException) -> int:
        if id(linked) not in numbers:
            numbers[id(linked)] = len(found)
            found.append(linked)
        return numbers[id(linked)]

    nodes = []
    for one in found:  # which grows: a chain may be thousands long, or a circle
        node = _node(one)
        for link in _LINKS:
            linked = getattr(one, link)
            node[link] = None if linked is None else number(linked)
        if isinstance(one, BaseExceptionGroup):
            node["members"] = [number(member) for member in one.exceptions]
        nodes.append(node)
    return pickle.dumps(nodes, 5)


def decode(data: bytes | memoryview) -> BaseException:
    """Return the exception that ``encode`` was given, or a ``RemoteError`` in its place."""
    nodes: list[_Node] = pickle.loads(data)
    errors: dict[int, BaseException] = {}
    for index in range(len(nodes)):
        _build(index, nodes, errors)
    for index, node in enumerate(nodes):
        error = errors[index]
        # Written past the class, which may forbid that its attributes are set.
        if node["notes"]:
            BaseException.__setattr__(error, "__notes__", node["notes"])
        if node["frames"]:
            BaseException.__setattr__(error, "__traceback__", _traceback(node["frames"]))
        for link in _LINKS:
            if node[link] is not None:
                BaseException.__setattr__(error, link, errors[node[link]])
        BaseException.__setattr__(error, "__suppress_context__", node["suppress"])
    return errors[0]


# --- taking apart --------------------------------------------------------------------------------------------------


def _node(error: BaseException) -> _Node:
    cls = type(error)
    frames, left_out = _frames(error.__traceback__)
    node: _Node = {
        "kind": f"{cls.__module__}.{cls.__qualname__}",
        "class": None,
        "args": [],
        "state": {},
        "members": None,
        "message": None,
        "notes": [],
        "text": None,
        "frames": frames,
        "suppress": error.__suppress_context__,
    }
    try:
        node["text"] = _text(error)
        node["notes"] = [str(note) for note in getattr(error, "__notes__", ())]
        if isinstance(error, BaseExceptionGroup):
            node["message"] = error.message
        else:
            node["args"] = [(_pickled(argument), _shown(argument)) for argument in error.args]
        for name, value in [*vars(error).items(), *_slots(error)]:
            if name != "__notes__":
                node["state"][name] = (_pickled(value), type(value).__qualname__)
        node["class"] = _pickled(cls)
    except Exception as broken:  # noqa: BLE001 - a class may resist being looked at; its text must arrive all the same
        node["notes"].append(f"(it could not be carried whole: {type(broken).__name__}: {broken})")
    if left_out:
        node["notes"].append(f"({left_out} frames left out of its traceback)")
    return node


def _text(error: BaseException) -> str | None:
    """Return the exception's text; None where it has none to give."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - see above
        return None


def _shown(value: object) -> str | None:
    """Return what stands for an argument that does not arrive; None for what certainly does."""
    if type(value).__module__ == "builtins":
        return None if isinstance(value, (str, bytes, int, float, complex)) else f"<{type(value).__qualname__}>"
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - see above
        return object.__repr__(value)


def _pickled(value: object) -> bytes | None:
    try:
        return dumps(value)
    except Exception:  # noqa: BLE001 - anything may refuse to be pickled, in any way
        return None


def _slots(error: BaseException) -> list[tuple[str, Any]]:
    """Return the values outside of the exception's ``__dict__``: ``errno``, ``filename``, a class's ``__slots__``."""
    found = []
    for cls in type(error).__mro__:
        for name, member in vars(cls).items():
            if not isinstance(member, MemberDescriptorType) or name.startswith("__") or member in _TOLD_ELSEWHERE:
                continue
            value = getattr(error, name, _UNSET)
            if value is not _UNSET and (value is not None or cls.__flags__ & _HEAP_TYPE):
                found.append((name, value))
    return found


_UNSET: Any = object()
_TOLD_ELSEWHERE = (
    vars(AttributeError)["obj"],  # the object whose attribute was missing: possibly a whole device
    vars(BaseExceptionGroup)["message"],
    vars(BaseExceptionGroup)["exceptions"],
)


def _frames(step: TracebackType | None) -> tuple[list[_Frame], int]:
    """Return the frames of a traceback and how many were left out in its middle."""
    frames = []
    while step is not None:
        code = step.tb_frame.f_code
        module = step.tb_frame.f_globals.get("__name__", "")
        frames.append((code.co_filename, code.co_name, step.tb_lineno, str(module)))
        step = step.tb_next
    left_out = max(0, len(frames) - _MOST_FRAMES)
    half = _MOST_FRAMES // 2
    return frames if not left_out else frames[:half] + frames[-half:], left_out


# --- putting together ----------------------------------------------------------------------------------------------


def _build(index: int, nodes: list[_Node], errors: dict[int, BaseException]) -> BaseException:
    if index not in errors:
        node = nodes[index]
        members = node["members"]
        if members is not None:
            members = [_build(member, nodes, errors) for member in members]
        try:
            errors[index] = _rebuilt(node, members)
        except Exception as failure:  # noqa: BLE001 - whatever a class does on loading, its text must arrive
            text = node["text"] if node["text"] is not None else "(it has no text)"
            errors[index] = RemoteError(node["kind"], text, "".join(_lines(node)))
            node["notes"].append(f"(it cannot be rebuilt here: {type(failure).__name__}: {failure})")
    return errors[index]


def _rebuilt(node: _Node, members: list[BaseException] | None) -> BaseException:
    if node["class"] is None:
        raise TypeError("its class could not be carried")
    cls: type[BaseException] = loads(node["class"])
    args: tuple[Any, ...] = tuple(_argument(data, shown) for data, shown in node["args"])
    state = {}
    notes = []
    for name, (data, kind) in node["state"].items():
        try:
            state[name] = _loaded(data)
        except Exception:  # noqa: BLE001 - see above
            notes.append(f"(its attribute {name!r}, a {kind}, could not be carried)")
    if members is None:
        error = _bare(cls, args)
        BaseException.__setattr__(error, "args", args)
    else:
        error = _bare(cls, (node["message"], members))
    for name, value in state.items():
        try:
            BaseException.__setattr__(error, name, value)
        except (AttributeError, TypeError):  # a property of the class is in the way
            vars(error)[name] = value
    if node["text"] is not None:
        str(error)  # a class that cannot tell its text any more is better told by what it was over there
    node["notes"] += notes
    return error


def _bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return a new exception by the built-in constructor that lies beneath the class's own."""
    for base in cls.__mro__:
        if base.__flags__ & _HEAP_TYPE or not issubclass(base, BaseException):
            continue
        for given in (args, ()):
            try:
                error: BaseException = base.__new__(cls, *given)
            except TypeError:  # not the one that the instances of this class are built by
                continue
            if type(error) is cls:
                return error
    raise TypeError(f"no {cls.__qualname__} can be made")


def _argument(data: bytes | None, shown: str | None) -> Any:
    try:
        return _loaded(data)
    except Exception:  # noqa: BLE001 - see above
        return _Lost(shown or "<unknown>")


def _loaded(data: bytes | None) -> Any:
    if data is None:
        raise TypeError("it could not be pickled")
    return loads(data)


class _Lost:
    """Stands where an argument could not be carried; looks as that did."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text


def _traceback(frames: list[_Frame]) -> TracebackType | None:
    import tblib

    step: dict[str, Any] | None = None
    for file, name, line, module in reversed(frames):
        frame = {
            "f_globals": {"__name__": module, "__file__": file},
            "f_locals": {},
            "f_code": {"co_filename": file, "co_name": name},
            "f_lineno": line,
        }
        step = {"tb_frame": frame, "tb_lineno": line, "tb_next": step}
    rebuilt: TracebackType | None = tblib.Traceback.from_dict(step).as_traceback()
    return rebuilt


def _lines(node: _Node) -> list[str]:
    summary = traceback.StackSummary.from_list([(file, line, name, None) for file, name, line, _ in node["frames"]])
    return ["Traceback (most recent call last):\n", *summary.format(), f"{node['kind']}: {node['text']}\n"]
