"""The REST API and the page, over real connections to a server with made-up statistics."""

import gzip
import http.client
import json
import re
import time
import urllib.parse

import pytest

from tests.web.feed import MADE, Served

TYPE = {"Content-Type": "application/json"}
NAMES = [made.name for made in MADE]


@pytest.fixture(scope="module")
def served():
    with Served(past=400, attacks=["R_SYN", "TRAFFIC"]) as served:
        yield served


def ask(served, method, path, body=None, headers=None):
    """Status, headers and body (parsed where it is JSON) of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=10)
    raw = json.dumps(body) if isinstance(body, dict | list) else body
    connection.request(method, path, raw, headers or {})
    answer = connection.getresponse()
    data = answer.read()
    connection.close()
    if answer.getheader("Content-Encoding") == "gzip":
        data = gzip.decompress(data)
    if answer.getheader("Content-Type", "").startswith("application/json") and data:
        data = json.loads(data)
    return answer.status, answer.headers, data


def bearer(served, **more):
    return {**TYPE, "Authorization": f"Bearer {served.token}", **more}


# -- reading -----------------------------------------------------------------------------------------------------------


def test_reading_is_open(served):
    assert ask(served, "GET", "/api/ping")[::2] == (200, {"status": "ok"})
    status, _, data = ask(served, "GET", "/api/status")
    assert status == 200
    assert (data["node"], data["series"], data["phase"]) == ("pi-kitchen", "eth0", "watching")
    status, _, data = ask(served, "GET", "/api/stats")
    assert [stat["stat"] for stat in data["stats"]] == NAMES
    assert data["stats"][0]["help"] and data["stats"][0]["up"] > data["stats"][0]["value"]
    status, _, data = ask(served, "GET", "/api/devices")
    assert [device["name"] for device in data["devices"]] == ["eth0", "lo"]
    assert "spot" in ask(served, "GET", "/api/config")[2]


def test_too_many_fields_are_refused(served, capfd):
    many = "&".join(f"a{number}=1" for number in range(30))
    assert ask(served, "GET", f"/api/poll?{many}")[::2] == (400, {"error": "more than 20 fields"})
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    assert ask(served, "POST", "/login", many, form)[::2] == (400, {"error": "more than 20 fields"})
    assert capfd.readouterr().err == ""


def test_one_statistic_with_its_history(served):
    _, _, plain = ask(served, "GET", "/api/stats/R_SYN")
    assert plain["stat"] == "R_SYN" and "history" not in plain
    _, _, hour = ask(served, "GET", "/api/stats/R_SYN?history=hour")
    rows = len(hour["history"]["t"])
    assert rows >= 400 and len(hour["history"]["v"]) == rows
    assert 6 <= len(hour["history"]["a"]) <= 30
    assert all(hour["history"]["v"][row] > 0.1 for row in hour["history"]["a"])
    _, _, day = ask(served, "GET", "/api/stats/R_SYN?history=day")
    assert 6 <= len(day["history"]["hi"]) <= 9
    assert all(low <= high for low, high in zip(day["history"]["lo"], day["history"]["hi"], strict=True))


def test_alarms_and_incidents(served):
    _, _, data = ask(served, "GET", "/api/alarms")
    assert {alarm["stat"] for alarm in data["alarms"]} >= {"R_SYN", "TRAFFIC"}
    assert data["alarms"] == sorted(data["alarms"], key=lambda alarm: -alarm["seq"])
    _, _, data = ask(served, "GET", "/api/incidents")
    first = data["incidents"][0]
    assert "R_SYN" in first["stats"] and first["end"]
    assert ask(served, "GET", f"/api/incidents/{first['id']}")[2] == first


def test_the_capture_of_an_incident(served, tmp_path):
    key = ask(served, "GET", "/api/incidents")[2]["incidents"][0]["id"]
    assert ask(served, "GET", f"/api/incidents/{key}.pcap")[0] == 404
    file = tmp_path / "some.pcap"
    file.write_bytes(b"\xd4\xc3\xb2\xa1" + bytes(20))
    served.captures[key] = file
    status, headers, data = ask(served, "GET", f"/api/incidents/{key}.pcap")
    assert (status, data) == (200, file.read_bytes())
    assert headers["Content-Type"] == "application/vnd.tcpdump.pcap"
    assert headers["Content-Disposition"] == f'attachment; filename="{key}.pcap"'
    for path in ("..%2f..%2fetc%2fpasswd.pcap", "a/b.pcap", "%00.pcap", ".pcap"):
        assert ask(served, "GET", f"/api/incidents/{path}")[0] == 404


def test_a_poll_brings_only_what_is_new_and_is_small(served):
    _, _, whole = ask(served, "GET", "/api/poll")
    assert whole["reset"] and len(whole["t"]) >= 400
    assert len(whole["alarms"]) >= 4 and whole["incidents"]
    served.feed.attacked["DNS_NX"] = 1
    while served.board.current.seq <= whole["seq"]:
        time.sleep(0.05)
    path = f"/api/poll?since={whole['seq']}&epoch={whole['epoch']}"
    status, headers, _ = ask(served, "GET", path, headers={"Accept-Encoding": "gzip"})
    assert status == 200
    assert int(headers["Content-Length"]) < 4096
    _, _, news = ask(served, "GET", path)
    assert not news["reset"] and 1 <= len(news["t"]) <= 3
    assert set(news["stats"]) == set(NAMES)
    assert all(len(stat["v"]) == len(news["t"]) for stat in news["stats"].values())


def test_a_poll_without_news_is_304(served):
    served.stepping = False
    try:
        time.sleep(0.1)
        seq, epoch = served.board.current.seq, served.board.epoch
        path = f"/api/poll?since={seq}&epoch={epoch}"
        _, headers, _ = ask(served, "GET", path)
        status, _, data = ask(served, "GET", path, headers={"If-None-Match": headers["ETag"]})
        assert (status, data) == (304, b"")
        cookie = {"Cookie": f"netspot={served.server.app._session}"}  # who has logged in sees another page
        assert ask(served, "GET", path, headers={"If-None-Match": headers["ETag"], **cookie})[0] == 200
    finally:
        served.stepping = True


def test_a_cursor_of_another_time_starts_anew(served):
    for query in ("since=5&epoch=other", f"since={10**12}&epoch={served.board.epoch}", "epoch=x"):
        _, _, news = ask(served, "GET", f"/api/poll?{query}")
        assert news["reset"] and len(news["t"]) >= 400


def test_short_windows_and_a_slow_network_are_no_reason_to_start_anew(served):
    seq, epoch = served.board.current.seq, served.board.epoch
    news = ask(served, "GET", f"/api/poll?since={seq - 300}&epoch={epoch}")[2]
    assert not news["reset"] and 300 <= len(news["t"]) <= 310


def test_a_cursor_from_before_the_clock_was_set_back_starts_anew():
    with Served(past=20) as own:
        own.stepping = False
        whole = ask(own, "GET", "/api/poll")[2]
        own.feed.step(own.board.current.time_ns - 3600 * 10**9)
        news = ask(own, "GET", f"/api/poll?since={whole['seq']}&epoch={whole['epoch']}")[2]
        assert (news["reset"], news["t"]) == (True, [0])
        own.feed.step(own.board.current.time_ns + 10**9)
        news = ask(own, "GET", f"/api/poll?since={news['seq']}&epoch={news['epoch']}")[2]
        assert (news["reset"], news["t"]) == (False, [0])


def test_health_turns_503_when_windows_stop_or_the_phase_is_bad(served, monkeypatch):
    status, _, data = ask(served, "GET", "/api/health")
    assert (status, data["status"], data["error"]) == (200, "ok", None)
    monkeypatch.setattr("netspot.web.views.SILENT_S", -1e9)
    monkeypatch.setattr("netspot.web.views.time.time_ns", lambda: served.board.current.time_ns + 60 * 10**9)
    status, _, data = ask(served, "GET", "/api/health")
    assert (status, data["error"]) == (503, "no window was completed for 60 s")


def test_metrics_are_prometheus_text(served):
    status, headers, data = ask(served, "GET", "/metrics")
    assert status == 200 and headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    lines = data.decode().splitlines()
    sample = re.compile(r'netspot_[a-z_]+\{[a-z]+="[^"]*"(,[a-z]+="[^"]*")*\} [-+0-9.e]+(NaN|Inf)?$')
    assert all(line.startswith("# ") or sample.match(line) for line in lines)
    assert any(
        line.startswith('netspot_stat{node="pi-kitchen",series="eth0",stat="R_SYN",unit="1"} 0.') for line in lines
    )
    assert any(line.startswith("netspot_alarms_total") and 'stat="R_SYN"' in line for line in lines)
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families)) > 12


def test_the_static_files_are_small_and_cached(served):
    _, _, page = ask(served, "GET", "/")
    total = len(page)
    for name in sorted(set(re.findall(rb'(?:src|href)="(static/[a-z.]+)"', page))):
        status, headers, data = ask(served, "GET", f"/{name.decode()}")
        assert status == 200
        total += len(data)
        assert ask(served, "GET", f"/{name.decode()}", headers={"If-None-Match": headers["ETag"]})[0] == 304
    assert total < 120 * 1024
    for name in ("page.html", "report.html", "..%2fapp.py", "nothing.js"):
        assert ask(served, "GET", f"/static/{name}")[0] == 404


def test_the_page_says_everything_without_javascript(served):
    _, headers, page = ask(served, "GET", "/")
    text = page.decode()
    assert headers["Content-Type"] == "text/html; charset=utf-8"
    for name in NAMES:
        assert f'<th scope="row">{name}</th>' in text
    assert "port scan from 192.168.1.23" in text and "<dt>Packets</dt>" in text and "Watching" in text
    assert "http://" not in text and "https://" not in text and "<script>" not in text and "style=" not in text


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/nothing", 404, "nothing at this address"),
        ("GET", "/api/stats/R_SIN", 404, "no statistic 'R_SIN'; there are: R_SYN"),
        ("GET", "/api/incidents/zz", 404, "no incident 'zz'"),
        ("GET", "/api/stats/R_SYN?history=week", 400, "history: one of hour, day"),
        ("GET", "/api/poll?since=-1", 400, "since: a whole number"),
        ("GET", "/api/poll?sinze=1", 400, "unknown parameter 'sinze'; accepted: since, epoch"),
        ("PUT", "/api/run", 405, "PUT is not allowed here; allowed: POST"),
        ("POST", "/api/run", 401, "Authorization: Bearer"),
    ],
)
def test_errors_tell_what_is_wrong(served, method, path, status, words):
    got, _, data = ask(served, method, path)
    assert got == status
    assert words in data["error"]


@pytest.mark.parametrize(
    ("path", "body", "status", "words"),
    [
        ("/api/run", {"action": "dance"}, 400, "action: one of start, stop"),
        ("/api/run", {"action": ["start"]}, 400, "action: one of"),
        ("/api/run", [1], 400, "must be a JSON object"),
        ("/api/run", '{"action": NaN}', 400, "NaN is no JSON number"),
        ("/api/run", "[" * 60_000, 400, "more than 500 lists and objects"),
        ("/api/run", "[" * 500, 400, "no JSON"),
        ("/api/run", '{"a":' * 500 + "1" + "}" * 500, 400, "unknown key"),
        ("/api/run", b"\xff\xfe", 400, "no JSON"),
        ("/api/run", {"action": "stop", "now": 1}, 400, "unknown key 'now'; accepted: action"),
        ("/api/run", " " * 70_000, 413, ""),
        ("/api/mute", {"stat": "R_SYN"}, 400, "seconds: a number above 0"),
        ("/api/mute", {"stat": "R_SYN", "seconds": True}, 400, "seconds: a number above 0"),
        ("/api/mute", {"stat": "R_SYN", "seconds": 1e99}, 400, "at most 604800"),
        ("/api/mute", {"stat": "NO", "seconds": 5}, 404, "no statistic 'NO'"),
        ("/api/mute", {"seconds": 5}, 400, "stat: the name of a statistic, or 'all'"),
        ("/api/relearn", {"stat": 5}, 400, "stat: the name"),
        ("/api/config", {"nope": 1}, 400, "nope: no such setting"),
        ("/api/config?save=yes", {}, 400, "save: one of 0, 1"),
    ],
)
def test_bad_requests_change_nothing(served, path, body, status, words):
    before = dict(served.feed.settings)
    got, _, data = ask(served, "POST", path, body, bearer(served))
    assert got == status
    assert words in data["error"]
    assert served.feed.settings == before and served.feed.running


@pytest.mark.parametrize("name", ["Accept-Encoding", "Authorization", "If-None-Match", "Cookie", "Origin"])
def test_a_header_of_any_bytes_is_no_bug(served, name):
    for method, path in (("GET", "/static/page.js"), ("POST", "/api/run"), ("POST", "/logout")):
        assert ask(served, method, path, "{}" if method == "POST" else None, {**TYPE, name: b"\xff"})[0] < 500


def test_a_body_must_say_that_it_is_json(served):
    headers = {**bearer(served), "Content-Type": "text/plain"}
    assert ask(served, "POST", "/api/run", '{"action": "stop"}', headers)[0] == 415


def test_a_main_loop_that_hangs_is_told(served, monkeypatch):
    monkeypatch.setattr("netspot.web.app.ANSWER_S", 0.2)
    monkeypatch.setattr(served.feed.commands, "serve", lambda handlers: None)
    status, headers, data = ask(served, "POST", "/api/relearn", {"stat": "R_SYN"}, bearer(served))
    assert (status, headers["Retry-After"]) == (503, "5")
    assert "did not answer" in data["error"]


# -- changing ----------------------------------------------------------------------------------------------------------


def test_commands_reach_the_main_loop(served):
    status, _, data = ask(served, "POST", "/api/mute", {"stat": "R_IP", "seconds": 60}, bearer(served))
    assert (status, data["status"], data["data"]["muted"]) == (200, "ok", ["R_IP"])
    assert served.feed.muted["R_IP"] > time.time_ns()
    assert ask(served, "POST", "/api/unmute", {"stat": "R_IP"}, bearer(served))[0] == 200
    assert served.feed.muted["R_IP"] <= time.time_ns()
    ask(served, "POST", "/api/run", {"action": "stop"}, bearer(served))
    assert not served.feed.running
    ask(served, "POST", "/api/run", {"action": "start"}, bearer(served))
    assert served.feed.running
    assert ask(served, "POST", "/api/config", {"spot": {"q": 1e-5}}, bearer(served))[0] == 200
    assert ask(served, "GET", "/api/config")[2]["spot"] == {"q": 1e-5}


def test_a_change_needs_the_token(served):
    body = {"stat": "R_SYN", "seconds": 5}
    status, headers, _ = ask(served, "POST", "/api/mute", body, TYPE)
    assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
    for given in ("Basic abc", "Bearer", "Bearer  ", "nonsense"):
        assert ask(served, "POST", "/api/mute", body, {**TYPE, "Authorization": given})[0] == 401
    assert ask(served, "POST", "/api/mute", body, {**TYPE, "Cookie": "netspot=guess"})[0] == 401
    assert ask(served, "POST", "/api/mute", body, {**TYPE, "Cookie": f"netspot={served.token}"})[0] == 401


def form(token):
    return urllib.parse.urlencode({"token": token}), {"Content-Type": "application/x-www-form-urlencoded"}


def test_the_login_form_sets_a_cookie_that_allows_changes(served):
    status, headers, _ = ask(served, "POST", "/login", *form(served.token))
    assert (status, headers["Location"]) == (303, "./")
    cookie = headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=strict" in cookie and "Path=/" in cookie and "Secure" not in cookie
    assert served.token not in cookie
    own = {**TYPE, "Cookie": cookie.partition(";")[0]}
    body = {"stat": "R_SYN", "seconds": 1}
    assert ask(served, "POST", "/api/mute", body, own)[0] == 200
    host = f"127.0.0.1:{served.server.port}"
    assert ask(served, "POST", "/api/mute", body, {**own, "Origin": f"http://{host}"})[0] == 200
    status, _, data = ask(served, "POST", "/api/mute", body, {**own, "Origin": "http://evil.example"})
    assert (status, data["error"]) == (403, "this request comes from another site")
    assert b'data-state="in open' in ask(served, "GET", "/", headers=own)[2]
    assert "Max-Age=0" in ask(served, "POST", "/logout", headers=own)[1]["Set-Cookie"]
    _, headers, _ = ask(served, "POST", "/login", form(served.token)[0], {**form("")[1], "X-Forwarded-Proto": "https"})
    assert "Secure" in headers["Set-Cookie"]


def test_five_wrong_tokens_a_minute_then_429():
    with Served() as served:
        for _ in range(3):
            assert ask(served, "POST", "/api/run", {"action": "stop"}, {**TYPE, "Authorization": "Bearer no"})[0] == 401
        for _ in range(2):
            assert ask(served, "POST", "/login", *form("no"))[1]["Location"] == "./?wrong"
        status, headers, data = ask(served, "POST", "/api/run", {"action": "stop"}, bearer(served))
        assert status == 429
        assert 50 < int(headers["Retry-After"]) <= 60
        assert "too many wrong tokens" in data["error"]
        body, kind = form("no")
        status, _, page = ask(served, "POST", "/login", body, {**kind, "Accept": "text/html"})
        assert status == 429 and b"Too many wrong tokens" in page
        assert ask(served, "GET", "/api/status")[0] == 200
        assert served.feed.running


def test_reading_may_need_the_token_too():
    with Served(read="token") as served:
        for path in (
            "/api/status",
            "/api/stats",
            "/api/poll",
            "/metrics",
            "/api/config",
            "/api/health",
            "/api/incidents",
        ):
            assert ask(served, "GET", path)[0] == 401
            assert ask(served, "GET", path, headers=bearer(served))[0] == 200
        page = ask(served, "GET", "/")[2].decode()
        assert "Log in" in page and "R_SYN" not in page and "pi-kitchen" not in page and "eth0" not in page
        assert ask(served, "GET", "/api/ping")[0] == 200
        assert ask(served, "GET", "/static/page.css")[0] == 200


# -- around it ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/status", "/nothing", "/static/page.js", "/metrics"])
def test_every_answer_carries_the_headers(served, path):
    _, headers, _ = ask(served, "GET", path)
    assert "script-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "Access-Control-Allow-Origin" not in headers
    assert headers.get("Server") is None


def test_a_rebound_name_is_refused(served):
    status, headers, data = ask(served, "GET", "/api/status", headers={"Host": "evil.example:11000"})
    assert status == 421
    assert "web.hosts" in data["error"] and headers["X-Content-Type-Options"] == "nosniff"
    assert ask(served, "GET", "/api/status", headers={"Host": "raspberrypi.local"})[0] == 200


def test_behind_a_proxy_under_a_prefix():
    with Served(base="/box/netspot/", hosts=("pi.example.org",)) as served:
        status, headers, _ = ask(served, "GET", "/box/netspot")
        assert (status, headers["Location"]) == (308, "/box/netspot/")
        for path in ("/box/netspot/", "/box/netspot/api/status", "/box/netspot/static/page.js", "/api/status"):
            assert ask(served, "GET", path, headers={"Host": "pi.example.org"})[0] == 200
        _, headers, _ = ask(served, "POST", "/box/netspot/login", *form(served.token))
        assert "Path=/box/netspot/" in headers["Set-Cookie"]
        origin = {"Host": "127.0.0.1:11000", "X-Forwarded-Host": "pi.example.org", "Origin": "https://pi.example.org"}
        own = {**TYPE, "Cookie": headers["Set-Cookie"].partition(";")[0], **origin}
        assert ask(served, "POST", "/box/netspot/api/mute", {"stat": "R_SYN", "seconds": 1}, own)[0] == 200


def test_openapi_names_every_path(served):
    _, headers, document = ask(served, "GET", "/api/openapi.json")
    assert headers["Content-Type"] == "application/json"
    routes = {re.sub("<name>", "{}", route.rule) for route in served.server.app._bottle.routes}
    described = {re.sub(r"\{[a-z]+\}", "{}", path) for path in document["paths"]}
    described.discard("/api/incidents/{}.pcap")
    assert routes - described == {"/", "/static/{}", "/login", "/logout", "/api/openapi.json"}
    assert described <= routes
