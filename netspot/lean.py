"""What must happen before numpy is imported, so that it costs a small board no more than it has to."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import threading
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

# numpy before 2.0 imports these with itself: 4 MiB that nothing here uses. They are loaded when somebody does.
LAZY = frozenset({"numpy.fft", "numpy.ma", "numpy.polynomial", "numpy.random"})


# Freed memory is kept for the next batch of packets up to so much [byte]: giving it back and taking it again costs
# a page fault for every 4 KiB of its columns, a quarter of all that a packet costs.
KEPT = 4 << 20
# Larger arrays are mapped by themselves: the tables of distinct keys take no memory before they are filled, [byte].
MAPPED = 1 << 19  # the most that glibc takes on 32 bits
_LOADING = threading.Lock()
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def prepare_numpy() -> None:
    """Does nothing where numpy is there already."""
    if "numpy" not in sys.modules:
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:  # glibc
            mallopt(M_TRIM_THRESHOLD, KEPT)
            mallopt(M_MMAP_THRESHOLD, MAPPED)
        # Nothing here multiplies matrices: a pool of threads would cost memory, and time for spinning idle.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        sys.meta_path.insert(0, _Lazy())


class _Lazy:
    """A finder that puts off what ``LAZY`` names, and ``ssl``, and does not find ``_hashlib``."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name == "_hashlib":
            raise ModuleNotFoundError(f"{name} is left out: hashlib does without", name=name)
        if name == "ssl":
            return ModuleSpec(name, _Ssl)  # type: ignore[arg-type]
        spec = PathFinder.find_spec(name, path) if name in LAZY else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec


class _Ssl(ModuleType):
    """``ssl`` until somebody encrypts: OpenSSL takes 5 MiB, and paho-mqtt, http.client and our own modules import it
    without need. Before it is loaded nobody can raise its errors, so that catching them need not load it.
    """

    class NeverRaised(Exception):
        pass

    @classmethod
    def create_module(cls, spec: ModuleSpec) -> ModuleType:
        return cls(spec.name)

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """Nothing yet."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        with _LOADING:
            if "SSLContext" not in self.__dict__:
                if name.startswith("SSL") and name.endswith("Error"):
                    return self.NeverRaised
                spec = PathFinder.find_spec("ssl")
                assert spec is not None and spec.loader is not None
                spec.loader.exec_module(self)
        try:
            return self.__dict__[name]
        except KeyError:
            raise AttributeError(f"module ssl has no attribute {name}") from None
