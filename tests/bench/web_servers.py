"""Memory that a WSGI server takes, on top of numpy and bottle, with two threads and after 300 requests.

python -m tests.bench.web_servers waitress
python -m tests.bench.web_servers cheroot
"""

from __future__ import annotations

import http.client
import re
import sys
import threading
import time
from pathlib import Path
from typing import Any

import bottle
import numpy  # noqa: F401 - what the service holds anyway, and what it brings along, is not counted

PORT = 18_099


def resident_kib() -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) if found else 0


def serve(name: str, app: Any) -> None:
    if name == "cheroot":
        from cheroot import wsgi

        server = wsgi.Server(("127.0.0.1", PORT), app, numthreads=2)
        threading.Thread(target=server.start, daemon=True).start()
    else:
        import waitress

        server = waitress.create_server(app, listen=f"127.0.0.1:{PORT}", threads=2)
        threading.Thread(target=server.run, daemon=True).start()


def main() -> None:
    threading.stack_size(512 * 1024)
    app = bottle.Bottle()
    app.route("/", "GET", lambda: "x" * 3000)
    before = resident_kib()
    serve(sys.argv[1], app)
    time.sleep(0.5)
    for _ in range(300):
        connection = http.client.HTTPConnection("127.0.0.1", PORT)
        connection.request("GET", "/")
        connection.getresponse().read()
        connection.close()
    print(f"{sys.argv[1]}: {(resident_kib() - before) / 1024:.1f} MiB")


if __name__ == "__main__":
    main()
