"""A name like ``_life_`` is the framework's own: see "Names" on the page about the architecture.

What is private to a class, ``_name``, is the linter's business (its rule SLF001); it does not look at these.
"""

import ast
import functools
from pathlib import Path

import catkit_devices
import catkit_devices.plugins
import catkit_devices.sim

FRAMEWORK = {
    file: ast.parse(file.read_text("utf-8")) for file in sorted(Path(catkit_devices.__path__[0]).rglob("*.py"))
}
OUTSIDE = {
    file: ast.parse(file.read_text("utf-8"))
    for package in (catkit_devices.plugins, catkit_devices.sim)
    for file in sorted(Path(package.__path__[0]).rglob("*.py"))
}


def is_internal(name):
    return name.startswith("_") and name.endswith("_") and not name.startswith("__")


def own(node):
    """Return whether it is an attribute of the object itself, or of its class."""
    base = node.value
    return isinstance(base, ast.Name) and base.id in {"self", "cls"}


def classes(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


@functools.cache
def declared(tree):
    """Return the names that the classes of a module state in their bodies, for others to read."""
    names = set()
    for statement in (statement for cls in classes(tree) for statement in cls.body):
        if isinstance(statement, ast.FunctionDef):
            names.add(statement.name)
        elif isinstance(statement, ast.AnnAssign):
            names.add(statement.target.id)
        elif isinstance(statement, ast.Assign):
            names.update(target.id for target in statement.targets if isinstance(target, ast.Name))
    return names


@functools.cache
def set_on_self(tree):
    attributes = (node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and own(node))
    return {node.attr for node in attributes if isinstance(node.ctx, ast.Store)}


def reached(tree):
    """Yield the framework's own attributes that code of a module uses of other objects."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_internal(node.attr) and not own(node):
            yield node


def stores(tree):
    """Yield what is set or deleted inside of other objects: ``one._its_ = ...``, ``one._its_.fault = ...``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            inside = node
            while isinstance(inside, ast.Attribute | ast.Subscript):
                if isinstance(inside, ast.Attribute) and is_internal(inside.attr) and not own(inside):
                    yield node, inside.attr
                    break
                inside = inside.value


def test_private_values_of_the_framework_are_set_only_by_the_module_of_their_class():
    wrong = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in FRAMEWORK.items()
        for node, name in stores(tree)
        if name not in declared(tree) | set_on_self(tree)
    ]

    assert wrong == []


def test_members_that_other_modules_use_are_declared_in_the_body_of_their_class():
    stated = set().union(*map(declared, FRAMEWORK.values()))
    wrong = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in FRAMEWORK.items()
        for node in reached(tree)
        if node.attr not in stated | set_on_self(tree)
    ]

    assert wrong == []


def test_plugins_and_simulated_instruments_use_nothing_of_the_frameworks_own():
    own_names = set().union(*map(declared, FRAMEWORK.values()))
    wrong = [
        f"{file}:{node.lineno}: {ast.unparse(node)}"
        for file, tree in OUTSIDE.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and is_internal(node.attr) and node.attr in own_names
    ]

    assert wrong == []
