"""Where the server listens, and how it stands slow, broken and many connections."""

import http.client
import json
import os
import resource
import socket
import ssl
import stat
import subprocess
import threading
import time
from contextlib import ExitStack, closing, suppress

import pytest

from netspot.client import UnixConnection
from netspot.commands import CommandQueue
from netspot.config import WebConfig
from netspot.errors import ConfigError
from netspot.snapshot import Board, Info
from netspot.web import server as web
from netspot.web.listen import parse_listen
from netspot.web.server import WebServer
from tests.web.feed import Served


def ping(port, host="127.0.0.1", timeout=5.0):
    """Seconds until the answer."""
    start = time.monotonic()
    with closing(http.client.HTTPConnection(host, port, timeout=timeout)) as connection:
        connection.request("GET", "/api/ping")
        assert json.load(connection.getresponse()) == {"status": "ok"}
    return time.monotonic() - start


def say(port, data, timeout=5.0):
    """Everything that comes back for raw bytes, until the server closes."""
    with socket.create_connection(("127.0.0.1", port), timeout) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        out = b""
        while chunk := sock.recv(65536):
            out += chunk
        return out


# -- addresses ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("127.0.0.1:11000", (socket.AF_INET, ("127.0.0.1", 11000))),
        ("pi.lan:80", (socket.AF_INET, ("192.0.2.1", 80))),
        (":80", (socket.AF_INET, ("0.0.0.0", 80))),
        ("[::1]:80", (socket.AF_INET6, ("::1", 80))),
        ("[::]:80", (socket.AF_INET6, ("::", 80))),
        ("unix:/run/netspot/web.sock", (socket.AF_UNIX, "/run/netspot/web.sock")),
    ],
)
def test_listen(text, expected, monkeypatch):
    resolve = socket.gethostbyname  # which takes an address for itself
    monkeypatch.setattr(socket, "gethostbyname", lambda name: "192.0.2.1" if name == "pi.lan" else resolve(name))
    assert parse_listen(text) == expected


@pytest.mark.parametrize(
    "text",
    ["", "11000", "127.0.0.1", "127.0.0.1:x", "::1:80", "[::1]", "[x]:80", "h:99999", "unix:rel", "unix:/" + "x" * 107],
)
def test_listen_refuses(text):
    with pytest.raises(ConfigError, match="web.listen"):
        parse_listen(text)


def test_no_such_host_is_told():
    with pytest.raises(ConfigError, match="there is no host 'no-such-host.invalid'"):
        parse_listen("no-such-host.invalid:80")


def test_ipv6_and_ipv4_at_once():
    with Served(listen="[::]:0") as served:
        assert ping(served.server.port, "::1") < 5
        assert ping(served.server.port, "127.0.0.1") < 5


def test_an_address_in_use_is_told_and_given_back_at_the_end():
    with Served() as served:
        port = served.server.port
        with pytest.raises(ConfigError, match=f"web.listen = '127.0.0.1:{port}': Address already in use"):
            Served(listen=f"127.0.0.1:{port}").__enter__()
    with Served(listen=f"127.0.0.1:{port}") as served:
        ping(port)


def test_closing_does_not_wait_for_a_command_of_the_page():
    """A command may change web.listen: then the main loop closes the server while a worker waits for the main loop."""
    with Served() as served:
        closed = threading.Event()

        def configure(_):
            start = time.monotonic()
            served.server.close()
            assert time.monotonic() - start < 0.5
            closed.set()

        served.feed.handlers["config"] = configure
        connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=5)
        headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
        connection.request("POST", "/api/config", "{}", headers)
        assert closed.wait(2)
        connection.close()


def test_a_unix_socket(tmp_path):
    path = tmp_path / "web.sock"
    with Served(listen=f"unix:{path}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with closing(UnixConnection(str(path))) as connection:
            connection.request("GET", "/api/ping", headers={"Host": "anything.example"})
            assert connection.getresponse().status == 200
        with pytest.raises(ConfigError, match="another program answers there"):
            Served(listen=f"unix:{path}").__enter__()
    assert not path.exists()
    with closing(socket.socket(socket.AF_UNIX)) as left_behind:
        left_behind.bind(str(path))
    with Served(listen=f"unix:{path}"), closing(UnixConnection(str(path))) as connection:
        connection.request("GET", "/api/ping")
        assert connection.getresponse().status == 200


# -- TLS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost "
        f"-addext subjectAltName=IP:127.0.0.1 -keyout {key} -out {cert}".split(),
        check=True,
        capture_output=True,
    )
    return str(cert), str(key)


def test_tls(certificate):
    cert, key = certificate
    context = ssl.create_default_context(cafile=cert)
    with Served(cert=cert, key=key, past=700) as served:
        port = served.server.port
        with closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)) as connection:
            for _ in range(3):  # kept alive
                connection.request("GET", "/api/poll")
                assert len(json.loads(connection.getresponse().read())["t"]) >= 590
            body = json.dumps({"spot": {"note": "x" * 50_000}})  # more than one TLS record
            headers = {"Authorization": f"Bearer {served.token}", "Content-Type": "application/json"}
            connection.request("POST", "/api/config", body, headers)
            assert connection.getresponse().status == 200
        with suppress(OSError):  # no TLS: refused, and the server goes on
            assert say(port, b"GET / HTTP/1.1\r\n\r\n") == b""
        with ExitStack() as stack:  # as do connections that never begin a handshake
            for _ in range(20):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            start = time.monotonic()
            with closing(http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=5)) as connection:
                connection.request("GET", "/api/ping")
                assert connection.getresponse().status == 200
            assert time.monotonic() - start < 1


def test_tls_settings_that_cannot_work_are_told(certificate, tmp_path):
    cert, key = certificate
    board = Board(Info("n", "eth0", "3", 0, 10**9, ()))

    def server(**tls):
        return WebServer(WebConfig(listen="127.0.0.1:0", **tls), board, CommandQueue(), state_dir=str(tmp_path))

    with pytest.raises(ConfigError, match=r"web\.tls\.key is not set"):
        server(cert=cert)
    with pytest.raises(ConfigError, match="No such file"):
        server(cert=cert, key="/nowhere/key.pem")
    with pytest.raises(ConfigError, match="cannot be used"):
        server(cert=cert, key=cert)


# -- broken, big, slow, many -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served():
    with Served() as served:
        yield served


@pytest.mark.parametrize(
    ("raw", "status"),
    [
        (b"\x00\x01 \xff\r\n\r\n", b"400"),
        (b"GET /api/ping HTTP/1.1\r\nHost: a\r\nA: " + b"x" * 20_000 + b"\r\n\r\n", b"431"),
        (b"POST /api/run HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST /api/run HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n", b"400"),
        (b"POST /api/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"501"),
        (b"POST /api/run HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n", b"400"),
    ],
)
def test_what_is_no_request_is_refused_in_json(served, raw, status):
    head, _, body = say(served.server.port, raw).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1") and head.split()[1] == status
    assert json.loads(body)["error"]
    ping(served.server.port)


def test_pipelined_and_half_closed_requests_are_answered(served):
    request = b"GET /api/ping HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.server.port), 5) as sock:
        sock.sendall(request * 5)
        out = b""
        while out.count(b'{"status":"ok"}') < 5:
            out += sock.recv(65536)
    ping(served.server.port)


def test_the_request_that_closes_the_server_is_answered(tmp_path):
    """A change of web.listen does so; the connection that waits idle is closed, nothing else is left."""
    commands, answers = CommandQueue(), []
    server = WebServer(WebConfig(listen="127.0.0.1:0"), Board(Info("pi", "eth0", "v", 0, 10**9, ())), commands,
                       state_dir=str(tmp_path))  # fmt: skip
    server.start()
    port, token = server.port, (tmp_path / "token").read_text().strip()

    def ask():
        head = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("POST", "/api/config", "{}", head)
            answer = connection.getresponse()
            answers.append((answer.status, answer.getheader("Connection"), json.load(answer)))

    def change(args):
        server.close()
        return {"listen": "elsewhere"}

    with socket.create_connection(("127.0.0.1", port), 5) as idle:
        asking = threading.Thread(target=ask)
        asking.start()
        start = time.monotonic()
        while not answers and time.monotonic() - start < 5:
            commands.serve({"config": change})
            time.sleep(0.01)
        asking.join()
        assert answers == [(200, "close", {"status": "ok", "data": {"listen": "elsewhere"}})]
        assert idle.recv(1) == b"" and time.monotonic() - start < 1
    with pytest.raises(ConnectionRefusedError):
        ping(port)


def test_few_threads_serve(served):
    assert sum(thread.name.startswith(("netspot-web", "waitress")) for thread in threading.enumerate()) <= 2 * 3


def test_200_slow_connections_take_nothing_from_others(served):
    """Headers a byte at a time, bodies that never come, answers that are never read."""
    kinds = (
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ",
        b"POST /login HTTP/1.1\r\nContent-Length: 60000\r\n\r\nto",
        b"",
    )
    with ExitStack() as stack:
        slow = []
        for i in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", served.server.port), 5))
            sock.sendall(kinds[i % 3])
            slow.append(sock)
        waits = []
        for _ in range(20):
            for sock in slow:
                try:
                    sock.send(b"x")
                except OSError:
                    continue
            waits.append(ping(served.server.port))
            time.sleep(0.05)
        assert sorted(waits)[len(waits) // 2] < 0.5 and max(waits) < 3  # on a busy machine
        assert len(served.server._server.active_channels) <= web.CONNECTIONS


def test_answers_that_are_not_read_are_bounded_and_end(monkeypatch):
    monkeypatch.setattr(web, "REQUEST_S", 1.0)
    with Served(past=700) as served, ExitStack() as stack:
        for _ in range(40):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            sock.connect(("127.0.0.1", served.server.port))
            sock.sendall(b"GET /api/poll HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50)
        assert ping(served.server.port) < 4
        buffered = sum(channel.total_outbufs_len for channel in served.server._server.active_channels.values())
        assert buffered < 40 * 150_000  # one answer each, not fifty
        until = time.monotonic() + 15
        while len(served.server._server.active_channels) > 1 and time.monotonic() < until:
            time.sleep(0.1)
        assert len(served.server._server.active_channels) <= 1


def test_a_capture_may_take_longer(monkeypatch, tmp_path):
    monkeypatch.setattr(web, "REQUEST_S", 0.5)
    file = tmp_path / "some.pcap"
    file.write_bytes(os.urandom(8 << 20))
    with Served() as served, closing(http.client.HTTPConnection("127.0.0.1", served.server.port)) as connection:
        served.captures["x-1"] = file
        connection.connect()
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        connection.request("GET", "/api/incidents/x-1.pcap")
        answer, data = connection.getresponse(), b""
        while chunk := answer.read(256 << 10):
            data += chunk
            time.sleep(0.08)
        assert data == file.read_bytes()


def test_who_never_ends_a_request_is_cut_off(monkeypatch):
    monkeypatch.setattr(web, "REQUEST_S", 1.0)
    with Served() as served, socket.create_connection(("127.0.0.1", served.server.port), 5) as sock:
        start = time.monotonic()
        sock.sendall(b"GET /")
        with pytest.raises(OSError):
            while time.monotonic() - start < 5:
                time.sleep(0.1)
                sock.sendall(b"x")
        assert 0.8 < time.monotonic() - start < 4


def test_a_connection_is_kept_alive_between_polls(monkeypatch):
    monkeypatch.setattr(web, "REQUEST_S", 0.5)
    with (
        Served() as served,
        closing(http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=5)) as connection,
    ):
        connection.request("GET", "/api/ping")
        connection.getresponse().read()
        sock = connection.sock
        time.sleep(2.5)
        connection.request("GET", "/api/ping")
        assert connection.getresponse().status == 200 and connection.sock is sock


def test_thousands_of_connections_leave_nothing_behind(served):
    for _ in range(300):
        say(served.server.port, b"GET /api/ping HTTP/1.0\r\n\r\n")
    descriptors, memory = len(os.listdir("/proc/self/fd")), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(2000):
        say(served.server.port, b"GET /api/ping HTTP/1.0\r\n\r\n")
    time.sleep(0.2)
    assert abs(len(os.listdir("/proc/self/fd")) - descriptors) < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < 2048  # [KiB]
