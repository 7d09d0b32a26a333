"""Where NATS and etcd are."""

# ruff: noqa: E501 - a message is compared whole and reads best on one line

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.topology import Service, Tls
from tests.supervisor.topology.files import mistakes, topology

_CHILD = "\nchildren: [{actor: router}]"


def nats(written: str, **environ: str) -> Service:
    return topology(f"nats: {written}{_CHILD}", environ=environ).nats


@pytest.mark.parametrize(
    ("written", "service"),
    [
        ("embedded", Service(origin="file")),
        ("{embedded: true, port: 4333}", Service(port=4333, origin="file")),
        ("a", Service(urls=("nats://a:4222",), origin="file")),
        ("[tls://a, 'b:1', 'tls://[::1]/']", Service(urls=("tls://a:4222", "nats://b:1", "tls://[::1]:4222"), origin="file")),
        ("nats://u:p%40@a", Service(urls=("nats://a:4222",), user="u", password="p@", origin="file")),
        ("nats://secret@a", Service(urls=("nats://a:4222",), token="secret", origin="file")),
        ("{urls: [a], user: u, password: p}", Service(urls=("nats://a:4222",), user="u", password="p", origin="file")),
        ("{urls: [a], token: t}", Service(urls=("nats://a:4222",), token="t", origin="file")),
        (
            "{urls: [a], credentials: c.creds, tls: {ca: /ca.pem, cert: c.pem, key: k.pem}}",
            Service(
                urls=("nats://a:4222",), credentials="/srv/c.creds",
                tls=Tls(ca="/ca.pem", cert="/srv/c.pem", key="/srv/k.pem"), origin="file",
            ),
        ),
    ],
)  # fmt: skip
def test_every_form_means_one_service(written: str, service: Service) -> None:
    assert nats(written) == service


def test_etcd_has_its_own_schemes_and_port() -> None:
    text = f"etcd: [https://u:p@a, b]{_CHILD}"
    assert "the same user in every URL" in mistakes(text)[0]
    service = topology(f"etcd: [https://a, b]{_CHILD}").etcd
    assert service.urls == ("https://a:2379", "http://b:2379")


@pytest.mark.parametrize(
    ("written", "line"),
    [
        ("embeded", "x.yaml:1:7: nats: expected embedded or a URL such as nats://host:4222; found 'embeded' (did you mean 'embedded'?)"),
        ("nast://a", "x.yaml:1:7: nats: expected one of nats, tls as the scheme of a URL; found 'nast' (did you mean 'nats'?)"),
        ("nats://a:port", "x.yaml:1:7: nats: expected embedded or a URL such as nats://host:4222; found one that is no URL"),
        ("nats://a/b", "x.yaml:1:7: nats: expected embedded or a URL such as nats://host:4222; found another form"),
        ("'nats://:4222'", "x.yaml:1:7: nats: expected embedded or a URL such as nats://host:4222; found another form"),
        ("[]", "x.yaml:1:7: nats: expected at least one URL; found an empty list"),
        ("{port: 1}", "x.yaml:1:7: nats: expected embedded: true, or urls; found neither"),
        ("{embedded: true, user: u}", "x.yaml:1:30: nats.user: expected no user beside embedded: true; found it"),
        ("{urls: [a], port: 1}", "x.yaml:1:25: nats.port: expected port only with embedded: true; found it beside urls, which have theirs"),
        ("{urls: [a], password: p}", "x.yaml:1:29: nats.password: expected user beside password; found none"),
        ("{urls: [a], user: u, token: t}", "x.yaml:1:7: nats: expected one way to log in; found a user and a token"),
        ("{urls: ['b@a'], token: t}", "x.yaml:1:7: nats: expected one way to log in; found a token and a token in the URL"),
        ("{urls: [a], tls: {cert: c}}", "x.yaml:1:24: nats.tls: expected cert and key together"),
        ("5", "x.yaml:1:7: nats: expected a string or a mapping or a list; found 5"),
    ],
)  # fmt: skip
def test_a_service_that_cannot_be_meant_is_refused(written: str, line: str) -> None:
    assert mistakes(f"nats: {written}{_CHILD}") == [line]


def test_etcd_wants_a_password_with_its_user() -> None:
    assert mistakes(f"etcd: http://u@a{_CHILD}") == [
        "x.yaml:1:7: etcd: expected a password after the user; found none"
    ]


def test_the_environment_replaces_embedded_and_only_embedded() -> None:
    environ = {"NATS_SERVER": "nats://u:p@a, b:1".replace("b:1", "u:p@b:1"), "ETCD_ENDPOINTS": "e"}
    by_default = topology(_CHILD, environ=environ)
    assert by_default.nats.urls == ("nats://a:4222", "nats://b:1")
    assert (by_default.nats.user, by_default.nats.origin) == ("u", "NATS_SERVER")
    assert (by_default.etcd.urls, by_default.etcd.origin) == (("http://e:2379",), "ETCD_ENDPOINTS")
    assert nats("{embedded: true, port: 1}", **environ).origin == "NATS_SERVER"
    assert nats("nats://c", **environ).urls == ("nats://c:4222",)


def test_logins_and_files_beside_the_servers_of_the_environment() -> None:
    environ = {
        "NATS_SERVER": "tls://a", "NATS_CREDS": "/s/u.creds", "NATS_CA": "/s/ca.pem",
        "ETCD_ENDPOINTS": "https://e", "ETCD_USER": "u", "ETCD_PASSWORD": "p", "ETCD_CA": "/s/ca",
        "ETCD_CERT": "/s/c", "ETCD_KEY": "/s/k",
    }  # fmt: skip
    found = topology(_CHILD, environ=environ)

    assert (found.nats.credentials, found.nats.tls) == ("/s/u.creds", Tls(ca="/s/ca.pem"))
    assert (found.etcd.user, found.etcd.password) == ("u", "p")
    assert found.etcd.tls == Tls(ca="/s/ca", cert="/s/c", key="/s/k")
    # Of servers that the file names nothing is taken from there, and a URL's user goes first.
    assert nats("tls://c", **environ).credentials is None
    assert nats("embedded", **{**environ, "NATS_SERVER": "tls://u:p@a"}).credentials is None


@pytest.mark.parametrize(
    ("environ", "problem"),
    [
        ({"NATS_PASSWORD": "s3"}, "expected NATS_USER beside NATS_PASSWORD; found none"),
        ({"NATS_USER": "u", "NATS_TOKEN": "s3"}, "found NATS_USER and NATS_TOKEN"),
        ({"NATS_CERT": "c"}, "expected NATS_CERT and NATS_KEY, or neither"),
    ],
)
def test_a_half_login_in_the_environment_is_told(environ: dict[str, str], problem: str) -> None:
    [told] = mistakes(_CHILD, environ={"NATS_SERVER": "tls://a", **environ})

    assert told.startswith("NATS_SERVER: nats: ")
    assert problem in told
    assert "s3" not in told


def test_the_origin_says_who_spoke() -> None:
    assert topology(_CHILD, environ={"NATS_SERVER": ""}).nats.origin == "default"
    assert nats("embedded").origin == "file"
    assert topology(_CHILD, "nats=nats://a").nats.origin == "--set"
    assert topology(_CHILD, "nats.urls=[a]").nats.origin == "--set"


def test_a_wrong_variable_is_named() -> None:
    assert mistakes(_CHILD, environ={"ETCD_ENDPOINTS": "nats://a"}) == [
        "ETCD_ENDPOINTS: etcd: expected one of http, https as the scheme of a URL; found 'nats'"
    ]


def test_what_a_log_would_show_has_no_secret() -> None:
    assert repr(nats("nats://u:hidden@a")) == "Service(nats://a:4222, from file)"


@given(st.text(max_size=12))
def test_a_password_survives_its_way_through_a_url(password: str) -> None:
    from urllib.parse import quote

    written = password.encode("utf-8", "ignore").decode()
    service = nats(f"'nats://u:{quote(written, safe='')}@a'")
    assert service.password == written
