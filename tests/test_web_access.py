"""Token, session, wrong guesses and the Host header."""

import os
import stat

import pytest

from netspot.errors import ConfigError
from netspot.web import access


def test_the_token_is_made_once_and_only_its_owner_may_read_it(tmp_path):
    token = access.ensure_token(str(tmp_path))
    file = tmp_path / "token"
    assert len(token) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert access.ensure_token(str(tmp_path)) == token == file.read_text().strip()


def test_a_missing_state_folder_is_made(tmp_path):
    assert access.ensure_token(str(tmp_path / "new"))


def test_an_own_token_is_taken_and_a_useless_one_refused(tmp_path):
    (tmp_path / "token").write_text("my own long enough token\n")
    assert access.ensure_token(str(tmp_path)) == "my own long enough token"
    for text in ("", "short", "x" * 15, "\x00" * 40, "é" * 20):
        (tmp_path / "token").write_text(text)
        with pytest.raises(ConfigError, match="holds no token"):
            access.ensure_token(str(tmp_path))


def test_a_link_in_the_place_of_the_token_is_not_followed(tmp_path):
    (tmp_path / "token").symlink_to(tmp_path / "elsewhere")
    assert access.ensure_token(str(tmp_path)) is None
    assert not (tmp_path / "elsewhere").exists()


def test_a_state_folder_that_is_none_is_told_in_a_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"state\.dir = .*/file: is no folder; name another"):
        access.ensure_token(str(tmp_path / "file"))
    with pytest.raises(ConfigError, match=r"state\.dir = .*: is no folder"):
        access.ensure_token(str(tmp_path / "file" / "below"))
    (tmp_path / "token").mkdir()
    with pytest.raises(ConfigError, match="token: the token cannot be read: Is a directory; let the user"):
        access.ensure_token(str(tmp_path))


def test_a_folder_that_only_another_user_may_enter_is_told_in_a_line(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("becoming another user needs root")
    (tmp_path / "closed").mkdir(mode=0o700)
    os.seteuid(65534)
    try:
        with pytest.raises(ConfigError, match="cannot be read: Permission denied; let the user"):
            access.ensure_token(str(tmp_path / "closed"))
    finally:
        os.seteuid(0)


def test_without_a_state_folder_the_runtime_folder_serves(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    assert access.ensure_token(None) == (tmp_path / "netspot" / "token").read_text().strip()
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert access.ensure_token(None) is None


def test_five_wrong_guesses_a_minute_are_looked_at():
    now = [1000.0]
    guesses = access.Guesses(lambda: now[0])
    for _ in range(5):
        assert guesses.wait_s("192.168.1.9") == 0
        guesses.wrong("192.168.1.9")
        now[0] += 2
    assert guesses.wait_s("192.168.1.9") == pytest.approx(50)
    assert guesses.wait_s("192.168.1.10") == 0
    now[0] += 50
    assert guesses.wait_s("192.168.1.9") == 0


def test_guesses_are_counted_by_household_and_remembered_within_bounds():
    guesses = access.Guesses()
    for i in range(5):
        guesses.wrong(f"2001:db8::{i}")
    assert guesses.wait_s("2001:db8::ffff") > 0
    assert guesses.wait_s("2001:db8:0:1::1") == 0
    for i in range(2000):
        guesses.wrong(f"10.0.{i // 256}.{i % 256}")
    assert len(guesses._wrong) == access.PEERS


@pytest.mark.parametrize(
    "host",
    "127.0.0.1:11000 192.168.1.7 [::1]:11000 [fe80::1] localhost:11000 raspberrypi raspberrypi:11000 raspberrypi.local "
    "PI.LAN pi.fritz.box pi.home.arpa netspot.example.org netspot.example.org:443 pi.local.".split(),
)
def test_names_of_this_machine_are_answered_to(host):
    assert access.host_allowed(host, {"netspot.example.org"})


@pytest.mark.parametrize(
    "host",
    "evil.com evil.com:11000 raspberrypi.evil.com 127.0.0.1.evil.com localhost.evil.com [::1].evil.com 127.0.0.1:x "
    "netspot.example.org.evil.com a/b [::1 [zz]:1 999.1.1.1 local.evil 1.2.3.4,evil.com user@localhost :80 .".split(),
)
def test_other_names_are_not(host):
    assert not access.host_allowed(host, {"netspot.example.org"})


def test_the_session_does_not_give_the_token_away():
    token = "a-token-of-good-length"
    assert token not in access.session(token)
    assert access.session(token) != access.session(token + "x")
    assert access.same(token, token) and not access.same("\udcff", token) and not access.same("", token)
