"""What a long run keeps: one small file a map, found again by all that went into it, whichever process looks for it."""

from __future__ import annotations

import dataclasses
import dis
import enum
import functools
import hashlib
import json
import os
import re
import secrets
import socket
import sys
import sysconfig
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor, nn

from helpers.core import digest

# --------------------------------------------------------------------------------------- what went into it, as a text

PLAIN = (type(None), bool, int, float, complex, str, range, slice, enum.Enum, PurePath, np.generic, torch.dtype, torch.device)
FILLING = {"append", "extend", "insert", "add", "update", "setdefault", "pop", "popitem", "remove", "discard", "clear"}


def short(text: str | bytes) -> str:
    """A short name for a long text."""
    return hashlib.sha256(text if isinstance(text, bytes) else text.encode(errors="replace")).hexdigest()[:16]


def describe(thing: Any, known: dict[int, tuple[Any, str]] | None = None) -> str:
    """What a method, a metric or a network is, settings included, in a text that is the same in every process.

    A function of this package, of Python or of an installed package is its name: the commit knows its code.
    Of the reader's own functions, those of a notebook too, the code counts, its defaults, and the values that it finds outside
    itself. What such a function fills as it goes (a list that it appends to, any list, dict or set among its globals) is its
    memory and not a setting. Tensors, arrays and networks count by what is in them.
    known: descriptions of networks, kept from one call to the next so that each is read once.
    """
    networks: dict[int, tuple[Any, str]] = {} if known is None else known
    parts: dict[int, tuple[Any, str]] = {}  # with the thing itself, so that nothing else gets its id meanwhile

    def say(part: Any) -> str:
        for there in (networks, parts):
            if id(part) in there:
                return there[id(part)][1]
        parts[id(part)] = part, "itself"  # where it comes again inside itself
        text = described(part, say)
        text = text if len(text) <= 400 else f"{text[:300]}… {short(text)}"
        (networks if isinstance(part, nn.Module) else parts)[id(part)] = part, text
        return text

    return say(thing)


def described(thing: Any, say: Callable[[Any], str]) -> str:
    """`describe` one thing; `say` describes its parts."""
    kind = f"{type(thing).__module__}.{type(thing).__qualname__}".removeprefix("builtins.")
    match thing:
        case functools.partial():
            parts = [say(thing.func), *map(say, thing.args), *(f"{k}={say(v)}" for k, v in sorted(thing.keywords.items()))]
            return f"partial({', '.join(parts)})"
        case FunctionType():
            return of_function(thing, say)
        case MethodType():
            return f"{say(thing.__func__)} of {say(thing.__self__)}"
        case Tensor():
            return f"tensor {list(thing.shape)} {digest(thing)}"
        case np.ndarray() if thing.dtype != object:
            return f"array {list(thing.shape)} {thing.dtype} {short(thing.tobytes())}"
        case nn.Module():
            kinds = sorted({say(type(m)) for m in thing.modules()})
            own = [f"{name}.{k}={say(v)}" for name, m in thing.named_modules() for k, v in settings_of(m)]
            return f"{kind} {short(repr(thing) + ' '.join(kinds + own))} {digest(*thing.parameters(), *thing.buffers())}"
        case ModuleType():
            file = "" if installed(thing.__name__) else getattr(thing, "__file__", None)
            return f"module {thing.__name__}" + (f" {short(Path(file).read_bytes())}" if file else "")
        case type():
            written = [c for c in thing.__mro__ if not installed(c.__module__)]
            own = [f"{c.__qualname__}.{k}: {say(v)}" for c in written for k, v in members_of(c)]
            return f"{thing.__module__}.{thing.__qualname__} {' '.join(own)}".rstrip()
        case _ if isinstance(thing, PLAIN):
            return repr(thing)
        case bytes() | bytearray():
            return f"{kind} {short(bytes(thing))}"
        case list() | tuple():
            return f"{kind}[{', '.join(map(say, thing))}]"
        case set() | frozenset():
            return f"{kind}[{', '.join(sorted(map(say, thing)))}]"
        case Mapping():
            return f"{kind}[{', '.join(sorted(f'{say(k)}: {say(v)}' for k, v in thing.items()))}]"
    if hasattr(thing, "__wrapped__"):  # functools.cache
        return f"{kind} {say(thing.__wrapped__)}"
    name = kind if installed(type(thing).__module__) else say(type(thing))
    if dataclasses.is_dataclass(thing):
        fields = (f"{f.name}={say(getattr(thing, f.name))}" for f in dataclasses.fields(thing))
        return f"{name}({', '.join(fields)})"
    try:  # what pickle would keep of it
        parts = thing.__reduce_ex__(4)
    except Exception:
        return name if re.search("0x[0-9a-fA-F]{4,}", text := repr(thing)) else f"{name} {text}"
    return f"{name} {say([list(p) if isinstance(p, Iterator) else p for p in parts]) if isinstance(parts, tuple) else parts}"


def settings_of(module: nn.Module) -> list[tuple[str, Any]]:
    """What one network layer does that neither its `repr` nor its weights tell: its plain attributes, and its hooks."""
    plain = [(k, v) for k, v in sorted(vars(module).items()) if k[0] != "_" and k != "training" and isinstance(v, PLAIN)]
    hooks = (*module._forward_pre_hooks.values(), *module._forward_hooks.values())
    return plain + [("hook", h) for h in hooks if not getattr(h, "__module__", "").startswith("helpers.")]  # `counted` only looks


def members_of(kind: type) -> list[tuple[str, Any]]:
    """What the body of a class holds, the functions inside of properties, class methods and static methods for these."""
    found = {k: v for k, v in sorted(vars(kind).items()) if isinstance(v, FunctionType) or k[:2] != "__"}
    unwrapped = {k: getattr(v, "fget", None) or getattr(v, "__func__", v) for k, v in found.items() if k != "_abc_impl"}
    return [(k, v) for k, v in unwrapped.items() if isinstance(v, PLAIN + (FunctionType, list, tuple, dict, set, Tensor))]


def of_function(function: FunctionType, say: Callable[[Any], str]) -> str:
    """A function: its name, and what its name does not tell."""
    name, found = f"{function.__module__}.{function.__qualname__}", sys.modules.get(function.__module__)
    for part in function.__qualname__.split("."):
        found = getattr(found, part, None)
    if found is function and installed(function.__module__):
        return name
    own = not installed(function.__globals__.get("__name__", ""))
    values = {"defaults": function.__defaults__, "keywords": function.__kwdefaults__} | outside(function, own)
    return f"{name} {of_code(function.__code__) if own else ''}({', '.join(f'{k}={say(v)}' for k, v in values.items())})"


def installed(module: str) -> bool:
    """Whether a module belongs to this package, Python or an installed package; a notebook and the reader's files are not."""
    top = module.partition(".")[0]
    if top == "__main__":
        return False
    file = getattr(sys.modules.get(module), "__file__", None) or ""
    homes = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    return top in {"helpers", *sys.stdlib_module_names} or "site-packages" in file or file.startswith(homes)


def codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions written inside it."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def of_code(code: CodeType) -> str:
    """A short name for the code of a function: what it does, not where it stands."""
    constants = [
        of_code(c) if isinstance(c, CodeType) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return short(repr((code.co_code, code.co_names, code.co_varnames, code.co_freevars, constants)))


def outside(function: FunctionType, own: bool) -> dict[str, Any]:
    """The values that a function finds outside itself, by name; for one of the reader's own its globals, too.

    Left out, as memory: what it assigns itself, containers where it fills any, containers among its globals.
    """
    steps = [step for code in codes(function.__code__) for step in dis.get_instructions(code)]
    written = {step.argval for step in steps if step.opname in ("STORE_DEREF", "STORE_GLOBAL")}
    fills = any(
        step.opname in ("STORE_SUBSCR", "DELETE_SUBSCR") or step.opname in ("LOAD_ATTR", "LOAD_METHOD") and step.argval in FILLING
        for step in steps
    )
    found = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            value = cell.cell_contents
        except ValueError:  # not assigned yet
            continue
        if name not in written and not (fills and isinstance(value, list | dict | set)):
            found[name] = value
    read = {step.argval for step in steps if step.opname in ("LOAD_GLOBAL", "LOAD_NAME")} if own else set()
    for name in sorted((read - written) & function.__globals__.keys()):
        if not isinstance(function.__globals__[name], list | dict | set):
            found[name] = function.__globals__[name]
    return found


# ------------------------------------------------------------------------------------------------------------ on disk


@contextmanager
def whole(path: Path) -> Iterator[TextIO]:
    """A text file to write to; it appears under its name with all that was written, or not at all."""
    half = path.with_name(f"{path.name}.{socket.gethostname()}.{os.getpid()}.{secrets.token_hex(4)}.part")
    try:
        with open(half, "w", encoding="utf-8", newline="") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(half, path)
    except BaseException:
        half.unlink(missing_ok=True)
        raise


def warn(text: str) -> None:
    """A warning that points at the line that called this package."""
    depth = 1
    while sys._getframe(depth).f_globals.get("__name__", "").startswith("helpers."):
        depth += 1
    warnings.warn(text, stacklevel=depth + 1)


@dataclass(frozen=True)
class Measured:
    """What one map gave, metric -> value, what it took, and the commit of the code that made it."""

    values: dict[str, float]
    seconds: float
    forwards: int
    backwards: int
    commit: str

    def check(self, metrics: set[str]) -> None:
        """Errors: ValueError if it is not a number for each of these metrics."""
        if set(self.values) != metrics:
            raise ValueError(f"it has {', '.join(self.values) or 'no metrics'}; expected {', '.join(sorted(metrics))}")
        numbers = [*self.values.values(), self.seconds]
        if not all(type(v) is float for v in numbers) or not all(type(v) is int for v in (self.forwards, self.backwards)):
            raise ValueError("not all of its values are numbers")


class Store:
    """A folder with a file for each finished map. Several runs may use it at once; whoever comes later takes what is there."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.useless: set[Path] = set()  # files that were warned of
        self.folder.mkdir(parents=True, exist_ok=True)
        for half in self.folder.glob("*.part"):  # of a run that was killed while it wrote
            with suppress(FileNotFoundError):
                if half.stat().st_mtime < time.time() - 3600:
                    half.unlink()

    def path(self, key: Mapping[str, Any]) -> Path:
        return self.folder / f"{short(json.dumps(key, sort_keys=True))}.json"

    def read(self, key: Mapping[str, Any]) -> Measured | None:
        """What is kept under a key; None if there is nothing, or, with a warning, nothing of use. key["metrics"]: the metrics."""
        path = self.path(key)
        try:
            piece = json.loads(path.read_text(encoding="utf-8"))
            if piece["key"] != key:
                raise ValueError("it belongs to something else")
            found = Measured(**piece["measured"])
            found.check(set(key["metrics"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as problem:
            if path not in self.useless:
                warn(f"{path} is of no use and is made again: {type(problem).__name__}: {problem}")
            self.useless.add(path)
            return None
        return found

    def write(self, key: Mapping[str, Any], measured: Measured) -> None:
        """Keep it, whole or not at all. Errors: OSError, such as no space left; the folder is then as it was before."""
        with whole(self.path(key)) as file:
            json.dump({"key": key, "measured": asdict(measured)}, file)  # JSON keeps every digit of a number
