"""The commands ``netspot``, which ``python -m netspot`` is too, and ``netspotctl``.

Ctrl-C ends them at once while their modules are loaded: nothing has begun that would have to be put in order.
So this one imports as little as it can.
"""

import signal
from importlib import import_module


def netspot() -> None:
    _run("netspot.cli")


def netspotctl() -> None:
    _run("netspot.ctl")


def _run(module: str) -> None:
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # else whoever started us has it ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = import_module(module).main
    from netspot.terminal import INTERRUPTED, leave

    try:
        signal.signal(signal.SIGINT, handler)
        status = main()
    except KeyboardInterrupt:  # between two steps, where the command itself does not expect it
        status = INTERRUPTED
    leave(status)


if __name__ == "__main__":
    netspot()
