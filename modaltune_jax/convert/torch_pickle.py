"""The pickles in torch files, read by a machine that cannot run code.

A pickle is a programme for a stack machine, two of whose operations import and call whatever the file names.
Here a name is looked up in the tables of `torch_names`, or refused. Nothing recurses, and a short file
cannot ask for much memory or time.
"""

from __future__ import annotations

import dataclasses
import io
import pickletools
from collections.abc import Callable
from typing import Any

from modaltune_jax.convert import torch_names
from modaltune_jax.convert.torch_names import CALLS, DTYPES, STORAGES, RefusedError, Storage, shown
from modaltune_jax.types import InputError

_MAX_STEPS = 2_000_000
"""Operations in one pickle: a tensor takes about 45, and two million take some seconds."""


def load(stream: io.BytesIO, label: str) -> tuple[Any, dict[str, Storage]]:
    """Reads one pickle of a torch file.

    Args:
      stream: at the start of the pickle, left behind its end; in memory, where reading a length that is a
        lie takes no more than there is.
      label: the file, for messages.

    Returns:
      Dicts, lists, tuples, numbers, text, tensors and storages, which may refer to each other and to
      themselves; and the storages by key.

    Raises:
      InputError: the pickle is damaged, or does anything but describe tensors.
    """
    machine = _Machine()
    try:
        return machine.run(stream), machine.storages
    except RefusedError as error:
        raise InputError(
            f"{label}: its pickle {error}, which no dict of tensors does, and none of it was run; where you "
            "trust the file, load it with torch and save the tensors: torch.save(model.state_dict(), ...)"
        ) from None
    # pickletools warns of odd escapes in text, and warnings may be errors.
    except (ValueError, DeprecationWarning) as error:
        raise InputError(f"{label}: its pickle is damaged ({error}); download it again") from error


@dataclasses.dataclass(frozen=True, eq=False)
class Global:
    """A function or class by its name, and no more than that."""

    module: str
    name: str


class _Machine:
    """A stack, the heights at which marks were set, and a memo."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}
        self._steps = 0

    def run(self, stream: io.BytesIO) -> Any:
        for opcode, argument, _ in pickletools.genops(stream):
            self._spend(1)
            if opcode.name in _LITERALS:
                self.stack.append(argument)
            elif opcode.name in _CONSTANTS:
                self.stack.append(_CONSTANTS[opcode.name])
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            elif opcode.name not in _IGNORED:
                what = f" for {shown(argument.replace(' ', '.'))}" if isinstance(argument, str) else ""
                raise RefusedError(f"uses the operation {opcode.name}{what}")
        value = self.pop()
        if self.stack or self.marks:
            raise ValueError("it stops half-way")
        return value

    def _spend(self, steps: int) -> None:
        self._steps += steps
        if self._steps > _MAX_STEPS:
            raise RefusedError(f"takes more than {_MAX_STEPS} steps")

    def pop(self, kind: type = object) -> Any:
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise ValueError("an operation lacks an operand")
        value = self.stack.pop()
        if not isinstance(value, kind):
            raise ValueError(f"an operation on a {kind.__name__} finds an object {shown(value)}")
        return value

    def top(self, kind: type = object) -> Any:
        self.stack.append(self.pop(kind))
        return self.stack[-1]

    def pop_marked(self) -> list[Any]:
        """All above the last mark."""
        if not self.marks:
            raise ValueError("a mark is missing")
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def pop_last(self, count: int) -> list[Any]:
        return [self.pop() for _ in range(count)][::-1]

    def put(self, index: int) -> None:
        # Picklers count from 0. Wild numbers do no harm in a dict, unless chosen to collide.
        if not 0 <= index < _MAX_STEPS:
            raise ValueError("a memo index is out of range")
        self.memo[index] = self.top()

    def get(self, index: int) -> None:
        if index not in self.memo:
            raise ValueError("a memo entry is missing")
        self.stack.append(self.memo[index])

    def find(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise ValueError("a name is not text")
        if (module, name) in DTYPES:
            self.stack.append(DTYPES[module, name])
        elif (module, name) in CALLS or (module, name) in STORAGES:
            self.stack.append(Global(module, name))
        else:
            raise RefusedError(f"names {shown(f'{module}.{name}')}")

    def call(self) -> None:
        arguments, function = self.pop(tuple), self.pop(Global)
        if (function.module, function.name) not in CALLS:
            raise RefusedError(f"calls '{function.module}.{function.name}'")
        implementation, fewest, most = CALLS[function.module, function.name]
        if not fewest <= len(arguments) <= most:
            raise ValueError(f"{function.name} is given {len(arguments)} arguments")
        # A function looks at every item of its arguments, and the same arguments may come again and again.
        self._spend(sum(len(argument) for argument in arguments if isinstance(argument, list | tuple)))
        self.stack.append(implementation(*arguments))

    def build(self) -> None:
        state, target = self.pop(), self.top()
        # The state of an OrderedDict, `_metadata`, says versions of modules; the tensors are its items.
        if not (isinstance(state, dict) and isinstance(target, dict)):
            raise RefusedError(f"sets the state of an object {shown(target)}")

    def persistent(self) -> None:
        """("storage", type, key, device, size), and in the older format a view of it or None."""
        name = self.pop()
        if not (isinstance(name, tuple) and len(name) in (5, 6) and name[0] == "storage"):
            raise RefusedError("holds a persistent id that is not a storage")
        _, kind, key, _, size, *view = name
        dtype = STORAGES.get((kind.module, kind.name)) if isinstance(kind, Global) else None
        if dtype is None or not isinstance(key, str):
            raise ValueError("a storage without type or key")
        part = view[0] if view else None
        if part is not None:
            if not (isinstance(part, tuple) and len(part) == 3):
                raise ValueError("a view of a storage without its place")
            part = torch_names.natural(part[1]), torch_names.natural(part[2])
        storage = Storage(key, dtype, torch_names.natural(size), part)
        self.storages.setdefault(key, storage)
        self.stack.append(storage)

    def append(self, items: list[Any]) -> None:
        self.top(list).extend(items)

    def set_items(self, items: list[Any]) -> None:
        torch_names.fill(self.top(dict), zip(items[::2], items[1::2], strict=True))


_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})
_LITERALS = frozenset(
    {
        *("INT", "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
        *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    }
)
"""Operations that push what follows them; Python 2 writes long integers as INT."""
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_OPERATIONS: dict[str, Callable[[_Machine, Any], object]] = {
    "MARK": lambda machine, _: machine.marks.append(len(machine.stack)),
    "POP": lambda machine, _: machine.pop(),
    "POP_MARK": lambda machine, _: machine.pop_marked(),
    "EMPTY_LIST": lambda machine, _: machine.stack.append([]),
    "EMPTY_DICT": lambda machine, _: machine.stack.append({}),
    "TUPLE": lambda machine, _: machine.stack.append(tuple(machine.pop_marked())),
    "TUPLE1": lambda machine, _: machine.stack.append(tuple(machine.pop_last(1))),
    "TUPLE2": lambda machine, _: machine.stack.append(tuple(machine.pop_last(2))),
    "TUPLE3": lambda machine, _: machine.stack.append(tuple(machine.pop_last(3))),
    "APPEND": lambda machine, _: machine.append(machine.pop_last(1)),
    "APPENDS": lambda machine, _: machine.append(machine.pop_marked()),
    "SETITEM": lambda machine, _: machine.set_items(machine.pop_last(2)),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_marked()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(len(machine.memo)),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": lambda machine, name: machine.find(*name.partition(" ")[::2]),
    "STACK_GLOBAL": lambda machine, _: machine.find(*machine.pop_last(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.persistent(),
}
