import pytest

from kvstrata.lab.aptsources import (
    KEYRING,
    Stanza,
    for_suite,
    parse_deb822,
    parse_one_line,
    transport_options,
)
from kvstrata.lab.image import File, Recipe, make_recipe, proxy_settings


def recipe(**changes: object) -> Recipe:
    fields: dict[str, object] = {
        "suite": "bookworm",
        "sources": "Types: deb\n",
        "apt_options": (),
        "proxies": {},
        "extra_files": (),
    }
    return make_recipe(**(fields | changes))  # type: ignore[arg-type]


def test_the_same_recipe_has_the_same_tag() -> None:
    assert recipe().tag() == recipe().tag()
    assert recipe().tag().startswith("localhost/kvstrata-node:bookworm-")


def test_whatever_changes_the_image_changes_its_digest() -> None:
    variants = [
        recipe(),
        recipe(suite="trixie"),
        recipe(sources="Types: deb\nURIs: http://mirror.example\n"),
        recipe(apt_options=('Acquire::Retries "3";',)),
        recipe(proxies={"http_proxy": "http://proxy.example:3128"}),
        recipe(extra_files=(File("usr/local/share/ca-certificates/site.crt", "PEM"),)),
        recipe(extra_files=(File("usr/local/share/ca-certificates/site.crt", "PEM", 0o600),)),
    ]
    assert len({variant.digest() for variant in variants}) == len(variants)


def test_how_the_image_is_built_is_part_of_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    before = recipe().digest()
    monkeypatch.setattr(Recipe, "build_argv", lambda _self, scratch: ["mmdebstrap", "--mode=unshare"])
    assert recipe().digest() != before


def test_the_image_has_no_key_to_log_in_with_and_no_redis() -> None:
    made = recipe()
    assert not any("authorized_keys" in file.path for file in made.files)
    assert "redis-server" not in made.packages


def test_a_node_names_its_drives_by_id_at_every_boot() -> None:
    (init,) = (file for file in recipe().files if file.path == "usr/local/sbin/lab-init")
    assert init.content.index("/dev/disk/by-id/nvme-lab-$(uname -n)-") < init.content.index("exec /sbin/init")


def test_proxies_reach_apt_and_every_login() -> None:
    made = recipe(proxies={"https_proxy": "http://proxy.example:3128", "no_proxy": ".example"})
    assert made.apt_options == ('Acquire::https::Proxy "http://proxy.example:3128";',)
    (environment,) = (file for file in made.files if file.path == "etc/environment")
    assert environment.content == "https_proxy=http://proxy.example:3128\nno_proxy=.example\n"


def test_a_proxy_on_the_hosts_loopback_is_no_use_in_a_node() -> None:
    environ = {
        "http_proxy": "http://127.0.0.1:3128",
        "HTTPS_PROXY": "http://user:secret@localhost:3128",
        "NO_PROXY": ".example",
    }
    assert proxy_settings(environ) == {"no_proxy": ".example"}


HOST_SOURCES = """\
Types: deb
# an archive snapshot
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates bookworm-backports
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb-src
URIs: http://mirror.example/source
Suites: bookworm
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


def test_the_hosts_mirror_of_the_suite_is_used() -> None:
    text = for_suite(parse_deb822(HOST_SOURCES), "bookworm")
    assert "URIs: http://mirror.example/debian\nSuites: bookworm bookworm-updates\n" in text
    assert "backports" not in text
    assert "source" not in text
    assert "off.example" not in text


def test_one_line_sources_are_understood() -> None:
    text = "# deb http://no.example x main\ndeb [arch=amd64] http://m.example/debian bookworm main contrib # why\n"
    assert parse_one_line(text) == [Stanza(("http://m.example/debian",), ("bookworm",), ("main", "contrib"), KEYRING)]


def test_third_party_sources_do_not_make_a_system() -> None:
    vendor = parse_one_line("deb https://vendor.example/apt bookworm stable")
    assert "vendor.example" not in for_suite(vendor, "bookworm")


def test_a_host_without_the_suite_falls_back_to_debians_mirror() -> None:
    ubuntu = parse_one_line("deb http://archive.example/ubuntu noble main")
    text = for_suite(ubuntu, "bookworm")
    assert "URIs: http://deb.debian.org/debian\n" in text
    assert "bookworm-security" in text


def test_only_how_to_reach_mirrors_is_taken_from_the_hosts_apt() -> None:
    dump = """\
APT::Install-Recommends "1";
Acquire::Check-Valid-Until "false";
Acquire::https "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::mirror.example::Verify-Peer "true";
Acquire::Languages "";
Dir::Etc "etc/apt";
"""
    assert transport_options(dump) == (
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::https::mirror.example::Verify-Peer "true";',
    )
