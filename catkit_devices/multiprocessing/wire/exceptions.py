"""Sends an exception, complete, from one process to another.

Type, args, attributes, notes, cause, context, groups and the remote frames arrive. No constructor is called, so a class
may have any signature. An exception that cannot be rebuilt in the other process becomes a ``RemoteError`` with the full
text; the connection stays usable.
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
"""Frames of a traceback that are sent; of a longer one, the outermost and the innermost halves of this number."""
_HEAP_TYPE = 1 << 9  # Py_TPFLAGS_HEAPTYPE: set for classes that were made while the program runs
_LINKS = ("__cause__", "__context__")
"""By which an exception refers to others."""
_Frame = tuple[str, str, int, str]
_Node = dict[str, Any]


def encode(error: BaseException) -> bytes:
    """Return the exception, with its causes, contexts and members, as bytes. Never fails, whatever the exception is."""
    found = [error]
    numbers = {id(error): 0}

    def number(linked: BaseException) -> int:
        if id(linked) not in numbers:
            numbers[id(linked)] = len(found)
            found.append(linked)
        return numbers[id(linked)]

    nodes = []
    for one in found:  # the list grows in the loop: a chain may have thousands of links, or be a circle
        node = _node(one)
        for link in _LINKS:
            linked = getattr(one, link)
            node[link] = None if linked is None else number(linked)
        if isinstance(one, BaseExceptionGroup):
            node["members"] = [number(member) for member in one.exceptions]
        nodes.append(node)
    return pickle.dumps(nodes, 5)


def decode(data: bytes | memoryview) -> BaseException:
    """Return the exception that ``encode`` has encoded, or a ``RemoteError`` instead of it."""
    nodes: list[_Node] = pickle.loads(data)
    errors: dict[int, BaseException] = {}
    for index in range(len(nodes)):
        _build(index, nodes, errors)
    for index, node in enumerate(nodes):
        error = errors[index]
        # Set without the class's own __setattr__, which may forbid it.
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
    except Exception as broken:  # noqa: BLE001 - reading a class's attributes may raise; its text must arrive anyway
        node["notes"].append(f"(it could not be sent completely: {type(broken).__name__}: {broken})")
    if left_out:
        node["notes"].append(f"({left_out} frames left out of its traceback)")
    return node


def _text(error: BaseException) -> str | None:
    """Return the exception's text; None if that raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - see above
        return None


def _shown(value: object) -> str | None:
    """Return a text to show for an argument if it cannot be sent; None for one that certainly can."""
    if type(value).__module__ == "builtins":
        return None if isinstance(value, (str, bytes, int, float, complex)) else f"<{type(value).__qualname__}>"
    try:
        return repr(value)
    except Exception:  # noqa: BLE001 - see above
        return object.__repr__(value)


def _pickled(value: object) -> bytes | None:
    try:
        return dumps(value)
    except Exception:  # noqa: BLE001 - pickling may raise anything
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
"""Tells an attribute that is missing from one that is None."""
_TOLD_ELSEWHERE = (
    vars(AttributeError)["obj"],  # the object whose attribute was missing: possibly a whole device
    vars(BaseExceptionGroup)["message"],
    vars(BaseExceptionGroup)["exceptions"],
)


def _frames(step: TracebackType | None) -> tuple[list[_Frame], int]:
    """Return the frames of a traceback, and how many in its middle were left out."""
    frames = []
    while step is not None:
        code = step.tb_frame.f_code
        module = step.tb_frame.f_globals.get("__name__", "")
        frames.append((code.co_filename, code.co_name, step.tb_lineno or code.co_firstlineno, str(module)))
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
        except Exception as failure:  # noqa: BLE001 - loading may raise anything; the text must arrive anyway
            text = node["text"] if node["text"] is not None else "(it has no text)"
            errors[index] = RemoteError(node["kind"], text, "".join(_lines(node)))
            node["notes"].append(f"(it cannot be rebuilt in this process: {type(failure).__name__}: {failure})")
    return errors[index]


def _rebuilt(node: _Node, members: list[BaseException] | None) -> BaseException:
    if node["class"] is None:
        raise TypeError("its class could not be sent")
    cls: type[BaseException] = loads(node["class"])
    args: tuple[Any, ...] = tuple(_argument(data, shown) for data, shown in node["args"])
    state = {}
    notes = []
    for name, (data, kind) in node["state"].items():
        try:
            state[name] = _loaded(data)
        except Exception:  # noqa: BLE001 - see above
            notes.append(f"(its attribute {name!r}, a {kind}, could not be sent)")
    if members is None:
        error = _bare(cls, args)
        BaseException.__setattr__(error, "args", args)
    else:
        error = _bare(cls, (node["message"], members))
    for name, value in state.items():
        try:
            BaseException.__setattr__(error, name, value)
        except (AttributeError, TypeError):  # the class has a property of that name
            vars(error)[name] = value
    if node["text"] is not None:
        str(error)  # if this raises, the exception is replaced by a RemoteError that has the text
    node["notes"] += notes
    return error


def _bare(cls: type[BaseException], args: tuple[Any, ...]) -> BaseException:
    """Return a new exception, made by the constructor of the nearest built-in base class."""
    for base in cls.__mro__:
        if base.__flags__ & _HEAP_TYPE or not issubclass(base, BaseException):
            continue
        for given in (args, ()):
            try:
                error: BaseException = base.__new__(cls, *given)
            except TypeError:  # instances of this class cannot be made by this constructor
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
    """Replaces an argument that could not be sent; has the same repr."""

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
