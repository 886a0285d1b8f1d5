"""What must happen before numpy is imported, so that it costs a small board no more than it has to."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# Modules that others import without need, loaded when somebody asks for something in them: numpy's own are 5 MiB, and
# putting its docstrings in place takes longer than its core; OpenSSL, which paho-mqtt, http.client and some of ours
# import in case that somebody encrypts, is another 5 MiB.
LATER = {
    "numpy.fft",
    "numpy.linalg._umath_linalg",
    "numpy.ma",
    "numpy.polynomial",
    "numpy.random",
    "pickle",
    "platform",
    "ssl",
} | {f"numpy.{core}._add_newdocs{which}" for core in ("core", "_core") for which in ("", "_scalars")}
NEVER = "_hashlib"  # OpenSSL's hashes: hashlib has its own

# Freed memory is kept for the next batch of packets up to so much [byte]: giving it back and taking it again costs
# a page fault for every 4 KiB of its columns, a quarter of all that a packet costs.
KEPT = 4 << 20
# Larger arrays are mapped by themselves [byte]; on 32 bits glibc takes no more than that.
MAPPED = 1 << (21 if sys.maxsize > 1 << 32 else 19)
_LOADING = threading.RLock()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def prepare() -> None:
    """Set how memory is kept, and what is imported later or never; nothing where numpy is there already.

    No garbage is collected until ``Service.run``: what is imported and built until then stays.
    """
    if "numpy" not in sys.modules:
        gc.disable()
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc
            mallopt(M_TRIM_THRESHOLD, KEPT)
            mallopt(M_MMAP_THRESHOLD, MAPPED)
        # Nothing here multiplies matrices: a pool of threads would cost memory, and time for spinning idle.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        sys.meta_path.insert(0, _Finder())


class _Finder:
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == NEVER:
            raise ModuleNotFoundError(f"{name} is left out", name=name)
        spec = PathFinder.find_spec(name, path) if name in LATER else None
        if spec is not None:
            spec.loader = _Later(spec.loader)  # type: ignore[assignment]
        return spec


class _Later:
    """A loader that leaves its work to the module."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Deferred(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing yet."""


class _Deferred(ModuleType):
    """A module until an attribute of it is asked for, which loads it."""

    _loaded = False

    class NeverRaised(Exception):
        """Stands for each error of OpenSSL while nobody can raise one, so that catching them need not load it."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self.__name__ == "ssl" and name.startswith("SSL") and name.endswith("Error") and not self._loaded:
            return self.NeverRaised
        with _LOADING:
            if not self._loaded:
                self._load()
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module {self.__name__} has no attribute {name}") from None

    def _load(self) -> None:
        self._loaded = True  # what it lacks while it is being loaded, it lacks
        spec: Any = self.__spec__
        loader = spec.loader.loader
        try:
            module = loader.create_module(spec) or self  # compiled ones make a module of their own
            loader.exec_module(module)
            self.__dict__.update(vars(module))
        except BaseException:
            self._loaded = False
            raise
