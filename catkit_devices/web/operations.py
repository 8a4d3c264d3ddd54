"""How the operations of the REST interface are declared, so that its description is made from the code."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from catkit_devices.plain import number_in, plain
from catkit_devices.web.access import Access, Visitor
from catkit_devices.web.guard import visitor_of
from catkit_devices.web.problems import Problem, problem_response

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.requests import Request

__all__ = ["PREFIX", "Asked", "Operation", "Parameters", "allow", "answer_json", "description_of", "endpoint", "gone"]

PREFIX = "/api/v1"
"""Where the interface is."""
LOCK_HEADER = "lock-token"
"""The header that carries the token of a lock."""


class Parameters(BaseModel):
    """What a request may say; anything else is refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Asked:
    """One request.

    Attributes:
        request: as Starlette has it.
        visitor: who sent it.
        path: the words of its path that have a name.
        query: what follows the question mark, as the operation declares it.
        body: of the request, as the operation declares it.
        lock: the token of the lock that it bears.
    """

    request: Request
    visitor: Visitor
    path: Mapping[str, str]
    query: Any
    body: Any
    lock: str | None


@dataclass(frozen=True)
class Operation:
    """One operation of the interface.

    Attributes:
        method: of HTTP.
        path: with the names of its variable words in braces, as OpenAPI and Starlette write them.
        handle: does it; its docstring describes it.
        access: what is needed for it.
        query: the model of what may follow the question mark.
        body: the model of its body.
        answers: the type of its answer.
        locks: whether it can be done with a lock that the visitor has.
    """

    method: str
    path: str
    handle: Callable[[Asked], Awaitable[Any]]
    access: Access = Access.VIEW
    query: type[Parameters] | None = None
    body: type[Parameters] | None = None
    answers: str = "application/json"
    locks: bool = False

    @property
    def name(self) -> str:
        """Its name in the description."""
        return self.handle.__name__

    @property
    def variables(self) -> list[str]:
        """The names of the variable words of its path."""
        return re.findall(r"{(\w+)(?::\w+)?}", self.path)


def allow(visitor: Visitor, access: Access) -> None:
    """Refuse what a visitor may not do.

    Raises:
        Problem: it may not.
    """
    if visitor.access < access:
        raise Problem(
            403 if visitor.why_not else 401,
            visitor.why_not or "this needs the token for control, which the terminal of the service shows: send it as "
            "`Authorization: Bearer TOKEN`, or sign in on the page",
        )  # fmt: skip


async def gone(request: Request) -> None:
    """Return when the visitor has closed the connection."""
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            return
        await asyncio.sleep(0)


def answer_json(value: Any, status: int = 200) -> Response:
    """Return an answer with a value as JSON."""
    return Response(json.dumps(plain(value), allow_nan=False), status, media_type="application/json")


def endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    """Return what Starlette calls for an operation: it checks the request, and answers errors with problems."""

    async def handle(request: Request) -> Response:
        try:
            visitor = visitor_of(request.scope)
            allow(visitor, operation.access)
            asked = Asked(
                request,
                visitor,
                request.path_params,
                _checked(operation.query, _single(request), "what follows the question mark"),
                None if operation.body is None else _checked(operation.body, await _body(request), "the body"),
                request.headers.get(LOCK_HEADER) if operation.locks else None,
            )
            answer = await operation.handle(asked)
        except Exception as error:  # noqa: BLE001 - a driver may raise anything; the visitor is told
            return problem_response(error, {"www-authenticate": "Bearer"} if _is_401(error) else None)
        return answer if isinstance(answer, Response) else answer_json(answer)

    handle.__name__ = operation.name
    return handle


def _is_401(error: Exception) -> bool:
    return isinstance(error, Problem) and error.status == 401


def _single(request: Request) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in request.query_params.multi_items():
        if name in found:
            raise Problem(400, f"{name!r} is given twice")
        found[name] = value
    return found


async def _body(request: Request) -> Any:
    raw = await request.body()
    if not raw:
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":  # a form of another page cannot send this without being asked first
        raise Problem(415, f"expected the body as application/json, got {kind or 'no type'}")
    try:
        return json.loads(raw, parse_constant=_no_constant, parse_float=number_in)
    except (ValueError, RecursionError) as error:
        raise Problem(400, f"the body is no JSON: {error}") from None


def _no_constant(text: str) -> Any:
    raise ValueError(f"JSON has no {text}")


def _checked(model: type[Parameters] | None, given: Any, what: str) -> Any:
    if model is None:
        if given:
            raise Problem(400, f"{what}: nothing is expected, got {', '.join(given)}")
        return None
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = [
            {"where": ".".join(map(str, one["loc"])) or what, "problem": one["msg"]}
            for one in error.errors(include_url=False, include_context=False, include_input=False)
        ]
        text = "; ".join(f"{one['where']}: {one['problem']}" for one in wrong)
        raise Problem(400, f"{what}: {text}", errors=wrong) from None


def description_of(operations: Iterable[Operation], title: str, version: str) -> dict[str, Any]:
    """Return the description of the interface (OpenAPI 3.1)."""
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = re.sub(r":\w+}", "}", operation.path)
        paths.setdefault(PREFIX + path, {})[operation.method.lower()] = _described(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": "Devices, experiments, runs and telemetry of a testbed. What changes anything needs the "
            "token for control.",
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Problem": _PROBLEM},
        },
    }


# The schema of an error: RFC 9457.
_PROBLEM = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "description": "The kind of error."},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "What was expected, and what was found."},
        "notes": {"type": "array", "items": {"type": "string"}},
    },
}


def _described(operation: Operation) -> dict[str, Any]:
    first, _, rest = (inspect.getdoc(operation.handle) or "").partition("\n\n")
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in operation.variables
    ]
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        required = schema.get("required", ())
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": one,
             "description": one.get("description", "")}
            for name, one in schema["properties"].items()
        ]  # fmt: skip
    if operation.locks:
        parameters.append({
            "name": "Lock-Token", "in": "header", "required": False, "schema": {"type": "string"},
            "description": "The token of a lock on the device.",
        })  # fmt: skip
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": first.replace("\n", " "),
        "parameters": parameters,
        "responses": {
            "200": {"description": "Done.", "content": {operation.answers: {"schema": {}}}},
            "default": {
                "description": "It was refused, or it failed.",
                "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
        "security": [{"token": []}] if operation.access is Access.CONTROL else [{}, {"token": []}],
    }
    if rest:
        described["description"] = rest.replace("\n", " ")
    if operation.body is not None:
        required_body = bool(operation.body.model_json_schema().get("required"))
        described["requestBody"] = {
            "required": required_body,
            "content": {"application/json": {"schema": operation.body.model_json_schema()}},
        }
    return described
