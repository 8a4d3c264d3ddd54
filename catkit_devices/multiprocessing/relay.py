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
from catkit_devices.multiprocessing.channel import dumps

__all__ = ["decode", "encode"]

_MOST_FRAMES = 100
_Node = dict[str, Any]


def encode(error: BaseException) -> bytes:
    """Return the exception, with everything that hangs on it, as bytes."""
    nodes: list[_Node] = []
    _encode(error, nodes, {})
    return pickle.dumps(nodes, 5)


def decode(data: bytes | memoryview) -> BaseException:
    """Return the exception that ``encode`` was given, or a ``RemoteError`` in its place."""
    nodes: list[_Node] = pickle.loads(data)
    return _decode(0, nodes, {})


def _encode(error: BaseException, nodes: list[_Node], done: dict[int, int]) -> int:
    if id(error) in done:
        return done[id(error)]
    index = done[id(error)] = len(nodes)
    cls = type(error)
    node: _Node = {"kind": f"{cls.__module__}.{cls.__qualname__}", "text": _text(error), "frames": _frames(error)}
    nodes.append(node)
    node["class"] = _pickled(cls)
    node["args"] = [_pickled(argument) or _pickled(_Lost(argument)) for argument in error.args]
    node["notes"] = [str(note) for note in getattr(error, "__notes__", ())]
    node["state"] = {}
    for name, value in [*vars(error).items(), *_slots(error)]:
        if name != "__notes__":
            data = _pickled(value)
            if data is not None:
                node["state"][name] = data
            else:
                node["notes"].append(f"(its attribute {name!r}, a {type(value).__qualname__}, could not be carried)")
    if isinstance(error, BaseExceptionGroup):
        node["group"] = (error.message, [_encode(child, nodes, done) for child in error.exceptions])
        node["args"] = []
        node["state"].pop("exceptions", None)
        node["state"].pop("message", None)
    node["suppress"] = error.__suppress_context__
    for link in ("__cause__", "__context__"):
        linked = getattr(error, link)
        node[link] = None if linked is None else _encode(linked, nodes, done)
    return index


def _decode(index: int, nodes: list[_Node], done: dict[int, BaseException]) -> BaseException:
    if index in done:
        return done[index]
    node = nodes[index]
    children = [_decode(child, nodes, done) for child in node["group"][1]] if "group" in node else None
    try:
        error = _rebuild(node, children)
    except Exception:  # noqa: BLE001 - whatever a foreign class does on loading, its text must arrive
        error = RemoteError(node["kind"], node["text"], "".join(_lines(node)))
    done[index] = error
    for note in node["notes"]:
        error.add_note(note)
    if node["frames"]:
        error.__traceback__ = _traceback(node["frames"])
    for link in ("__cause__", "__context__"):
        if node[link] is not None:
            setattr(error, link, _decode(node[link], nodes, done))
    error.__suppress_context__ = node["suppress"]
    return error


def _rebuild(node: _Node, children: list[BaseException] | None) -> BaseException:
    if node["class"] is None:
        raise TypeError("its class cannot be carried")
    cls: type[BaseException] = pickle.loads(node["class"])
    args = tuple(pickle.loads(argument) for argument in node["args"])
    if children is not None:
        error = cls.__new__(cls, node["group"][0], children)
    else:
        error = cls.__new__(cls, *args)
        error.args = args
    for name, data in node["state"].items():
        try:
            object.__setattr__(error, name, pickle.loads(data))
        except AttributeError:  # a read-only member, which args have set already
            continue
    str(error)
    return error


class _Lost:
    """Stands where an argument could not be carried; looks as that did."""

    def __init__(self, value: object) -> None:
        try:
            self._text = repr(value)
        except Exception:  # noqa: BLE001 - a repr that raises must not hide the error that it belongs to
            self._text = object.__repr__(value)

    def __repr__(self) -> str:
        return self._text


def _pickled(value: object) -> bytes | None:
    try:
        return dumps(value)
    except Exception:  # noqa: BLE001 - anything may refuse to be pickled, in any way
        return None


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except Exception as broken:  # noqa: BLE001 - see above
        return f"(its text cannot be had: {type(broken).__name__})"


def _slots(error: BaseException) -> list[tuple[str, Any]]:
    found = []
    for cls in type(error).__mro__:
        for name, member in vars(cls).items():
            if isinstance(member, MemberDescriptorType) and not name.startswith("__"):
                value = getattr(error, name, None)
                if value is not None:
                    found.append((name, value))
    return found


def _frames(error: BaseException) -> list[tuple[str, str, int, str]]:
    frames = []
    step = error.__traceback__
    while step is not None:
        code = step.tb_frame.f_code
        frames.append(
            (code.co_filename, code.co_name, step.tb_lineno, str(step.tb_frame.f_globals.get("__name__", "")))
        )
        step = step.tb_next
    half = _MOST_FRAMES // 2
    return frames if len(frames) <= _MOST_FRAMES else frames[:half] + frames[-half:]


def _traceback(frames: list[tuple[str, str, int, str]]) -> TracebackType | None:
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
